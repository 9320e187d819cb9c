"""``bonaface demo``: the whole path on drawn faces, without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bonaface.errors import ConfigError

_PICTURES = {"train": 300, "validation": 100, "test": 150}  # of each class
_SETTINGS: dict[str, Any] = {"model": "cnn", "size": 96, "epochs": 6, "batch_size": 16}
_MARK = "demo.json"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path("demo-run"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of everything random.")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Show the report in the browser.")] = False,
) -> None:
    """Judge a photograph and a forged copy of it; then train and test a detector on drawn faces.

    Takes a minute or two on two cores and needs no network. What the detector learns holds for
    these drawings only.
    """
    from bonaface.cli import detect, evaluate, train
    from bonaface.drawn import write_drawn_set

    _claim(out, seed)
    if photographs := _photographs(out / "photographs", seed):
        typer.echo(f"$ bonaface detect {' '.join(photographs)}")
        detect.detect(photographs)
        typer.echo("")
    else:
        typer.echo("No photograph to judge: pip install 'bonaface[demo]' brings one\n")
    data, model, report = out / "data", out / "detector", out / "report"
    typer.echo(f"Drawing {2 * sum(_PICTURES.values())} faces, half of them forged, in {data}")
    write_drawn_set(data, _PICTURES, seed)

    options = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in _SETTINGS.items())
    typer.echo(f"\n$ bonaface train {data} --out {model} {options} --seed {seed}")
    train.train(data, model, **_SETTINGS, seed=seed)

    typer.echo(f"\n$ bonaface evaluate {model} {data} --images --out {report}")
    evaluate.evaluate(model, data, images=True, out=report)

    pictures = [str(data / "test" / label / "00000.jpg") for label in ("real", "fake")]
    typer.echo(f"\n$ bonaface detect --faces none {' '.join(pictures)} --model {model}")
    detect.detect(pictures, model, faces="none")

    page = (report / "report.html").resolve()
    typer.echo(f"\nReport: {page}")
    if open_:
        import webbrowser

        webbrowser.open(page.as_uri())


def _photographs(folder: Path, seed: int) -> list[str]:
    """An astronaut (from scikit-image), and she with her face blended in anew; else []."""
    import numpy as np
    from PIL import Image

    from bonaface.faces import open_finder
    from bonaface.forge import KINDS

    try:
        from skimage.data import astronaut
    except ImportError:
        return []
    real = astronaut()
    face = open_finder().find(real)[0]
    forged = KINDS["self_blend"](real, face, np.random.default_rng(seed), None).image
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, pixels in (("astronaut.png", real), ("astronaut-forged.png", forged)):
        Image.fromarray(pixels).save(folder / name)
        found.append(str(folder / name))
    return found


def _claim(out: Path, seed: int) -> None:
    """Take a folder that is new or empty, or holds an earlier demo, which goes."""
    import shutil

    from bonaface.files import write_json

    if out.exists():
        if not out.is_dir() or (any(out.iterdir()) and not (out / _MARK).is_file()):
            raise ConfigError(
                f"expected a new folder or an earlier demo, got {str(out)!r}; "
                "name another folder with --out"
            )
        for part in ("photographs", "data", "detector", "report"):
            shutil.rmtree(out / part, ignore_errors=True)
    write_json(out / _MARK, {"schema_version": 1, "seed": seed})
