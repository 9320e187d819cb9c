"""What files and pixels tell is what was put into them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bonaface import facts as module
from bonaface.drawn import write_drawn_set
from bonaface.errors import ImageError
from bonaface.facts import jpeg_quality, read_facts, read_headers
from bonaface.samples import load_samples
from traps import saved


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("facts") / "clean"
    write_drawn_set(root, {"train": 35, "validation": 5, "test": 30}, seed=3, size=48)
    return root


def test_the_limit_bounds_the_probes_and_not_the_search_for_copies(clean: Path) -> None:
    calls = []
    facts = read_facts(
        load_samples(clean), limit=30, progress=lambda done, total: calls.append((done, total))
    )
    assert len(facts.probed) == len(facts.statistics) == 30
    assert sum(facts.rows[at].label for at in facts.probed) == 15
    assert len(facts.hashes) == 140
    assert calls == [(done, 140) for done in range(1, 141)]


@pytest.mark.parametrize("quality", [5, 30, 50, 75, 76, 90, 95, 100])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_jpeg_quality_and_subsampling_are_those_it_was_saved_with(
    quality: int, subsampling: str, tmp_path: Path
) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    path = tmp_path / "a.JPG"
    exif = Image.Exif()
    exif[0x010F] = "maker"
    path.write_bytes(
        saved(picture, format="JPEG", quality=quality, subsampling=subsampling, exif=exif)
    )
    facts = module._read(path, True).file
    assert (facts.quality, facts.chroma, facts.exif, facts.icc) == (
        quality,
        subsampling,
        True,
        False,
    )
    assert (facts.format, facts.extension, facts.width) == ("JPEG", ".jpg", 32)


def test_a_table_that_ijg_never_made_has_the_nearest_quality() -> None:
    with Image.open(io.BytesIO(saved(Image.new("L", (16, 16)), format="JPEG", quality=80))) as one:
        table = list(one.quantization[0])
    table[10] += 1
    assert jpeg_quality(tuple(table)) == 80


def test_statistics_follow_the_picture() -> None:
    rng = np.random.default_rng(0)
    smooth = np.full((64, 64, 3), (200, 100, 50), np.uint8)
    rough = np.clip(smooth + rng.normal(0, 10, smooth.shape), 0, 255).astype(np.uint8)
    names = module.STATISTICS
    flat, noisy = (
        dict(zip(names, module._pixel_statistics(one), strict=True)) for one in (smooth, rough)
    )
    assert (flat["mean red"], flat["mean green"], flat["mean blue"]) == (200, 100, 50)
    assert flat["noise"] == 0
    # The grey of three independent channels: 10 times the norm of its weights.
    assert noisy["noise"] == pytest.approx(10 * np.linalg.norm((0.299, 0.587, 0.114)), rel=0.15)
    assert noisy["spread red"] == pytest.approx(10, rel=0.1)
    assert noisy["sharpness"] > flat["sharpness"]
    assert np.isfinite(list(flat.values())).all()


def test_the_spectrum_finds_the_frequency() -> None:
    across = np.arange(64)
    for ring in range(module.SPECTRUM):
        frequency = (ring + 0.5) / module.SPECTRUM / 2
        wave = np.tile(128 + 100 * np.sin(2 * np.pi * frequency * across), (64, 1))
        assert int(module._spectrum(wave.astype(np.float32)).argmax()) == ring


FORMATS = {
    "a.JPG": {"format": "JPEG", "quality": 83, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"},
    "grey.jpeg": {"format": "JPEG"},
    "b.png": {"format": "PNG"},
    "lies.jpg": {"format": "PNG"},
    "c.webp": {"format": "WebP", "quality": 60},
    "d.bmp": {"format": "BMP"},
    "e.tif": {"format": "TIFF"},
    "f.avif": {"format": "AVIF"},
    "g.heic": {"format": "HEIF"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_header_tells_the_same_as_the_whole_file(name: str, tmp_path: Path) -> None:
    if name == "g.heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 64, 3), np.uint8))
    path = tmp_path / name
    path.write_bytes(saved(picture.convert("L") if "grey" in name else picture, **FORMATS[name]))
    told = module.read_file_facts(path)
    assert told == module._read(path, False).file
    assert (told.width, told.height, told.bytes) == (64, 40, path.stat().st_size)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"no picture", "not an image"),
        (b"\xff\xd8\xff\xe0" + bytes(30), "damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(8), "damaged"),
        (b"\0\0\0\x18ftypheic" + bytes(8), "truncated"),
        (saved(Image.new("RGB", (8, 8)), format="PNG"), "smaller than 16 px"),
    ],
)
def test_a_header_that_cannot_be_read_has_a_reason(
    data: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=reason):
        module.read_file_facts(path)


def test_headers_are_read_of_the_pictures_that_would_be_probed(clean: Path, tmp_path: Path) -> None:
    samples = load_samples(clean)
    facts = read_facts(samples, limit=30, seed=2)
    found = read_headers(samples, limit=30, seed=2)
    assert found.rows == tuple(facts.rows[at] for at in facts.probed)
    assert found.files == tuple(facts.files[at] for at in facts.probed)
    assert found.unreadable == ()


def test_a_file_that_has_gone_is_unreadable(tmp_path: Path) -> None:
    write_drawn_set(tmp_path, {"train": 2}, seed=1, size=48)
    samples = load_samples(tmp_path)
    (tmp_path / samples.rows[0].path).unlink()
    assert read_headers(samples, limit=9).unreadable == ((samples.rows[0].path, "no such file"),)
