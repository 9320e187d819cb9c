"""``bonaface doctor``: what is installed, what this machine can do, and what is missing."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import typer

_USEFUL = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")
_REQUIREMENT = re.compile(r"^([\w.-]+)(?:\[([\w,-]+)\])?[^;]*(?:;.*extra == ['\"]([\w-]+)['\"])?")


def doctor() -> None:
    """Show versions, processor, devices, what is read, extras and the cache."""
    sections = {
        "versions": _versions(),
        "processor": _processor(),
        "devices": _devices(),
        "reading": _reading(),
        "extras": _extras(),
        "cache": _cache(),
    }
    for title, lines in sections.items():
        typer.echo(f"{title}:")
        for name, value in lines:
            typer.echo(f"  {name:<14}{value}")


def _versions() -> Iterator[tuple[str, str]]:
    from bonaface import __version__

    yield "bonaface", f"{__version__} in {Path(__file__).parents[1]}"
    yield "Python", platform.python_version()
    yield "platform", platform.platform()
    for name in ("onnxruntime", "torch"):
        yield name, _installed(name) or "not installed"


def _processor() -> Iterator[tuple[str, str]]:
    from bonaface.runtimes import processor_count

    yield "cores", f"{processor_count()} to use of {os.cpu_count()}"
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        yield "instructions", f"not known on {platform.system()} ({platform.machine()})"
        return
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    useful = [name for name in _USEFUL if name in flags]
    yield "instructions", " ".join(useful) or f"none of {' '.join(_USEFUL)}"
    yield "bf16", "fast" if "amx_bf16" in flags else "no faster; training stays with float32"


def _devices() -> Iterator[tuple[str, str]]:
    import onnxruntime

    providers = ", ".join(onnxruntime.get_available_providers())
    yield "detection", f"processor (of ONNX Runtime's providers: {providers})"
    if find_spec("torch") is None:
        yield "training", "none: PyTorch is not installed"
        return
    import torch

    if not torch.cuda.is_available():
        yield "training", f"processor ({torch.get_num_threads()} threads); no CUDA device"
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        yield f"cuda:{index}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB"


def _reading() -> Iterator[tuple[str, str]]:
    from bonaface.faces import CenterFace
    from bonaface.images import FORMATS
    from bonaface.video import CONTAINERS

    yield "faces", f"{CenterFace.name}, part of the install"
    yield "pictures", ", ".join(FORMATS)
    yield "clips", f"{', '.join(CONTAINERS)}, by OpenCV {_installed('opencv-python-headless')}"


def _extras() -> Iterator[tuple[str, str]]:
    wanted = _requirements()
    for extra in sorted(set(wanted) - {""}):
        missing = [name for name in _libraries(extra, wanted) if _installed(name) is None]
        if missing:
            yield (
                extra,
                f"missing {', '.join(missing)}; install with: pip install 'bonaface[{extra}]'",
            )
        else:
            yield extra, "complete"


def _requirements() -> dict[str, list[tuple[str, list[str]]]]:
    """By extra ("" is the base): libraries, and the extras of ours that they stand for."""
    from importlib import metadata

    found: dict[str, list[tuple[str, list[str]]]] = {}
    for line in metadata.requires("bonaface") or ():
        match = _REQUIREMENT.match(line)
        if match:
            name, extras, extra = match.groups()
            found.setdefault(extra or "", []).append((name, extras.split(",") if extras else []))
    return found


def _libraries(extra: str, wanted: dict[str, list[tuple[str, list[str]]]]) -> Iterator[str]:
    for name, extras in wanted.get(extra, []):
        if name == "bonaface":
            for other in extras:
                yield from _libraries(other, wanted)
        else:
            yield name


def _installed(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cache() -> Iterator[tuple[str, str]]:
    from bonaface.files import cache_root

    root = cache_root()
    sizes = [path.lstat().st_size for path in root.rglob("*") if path.is_file()]
    # The folder may be one that someone named and that holds other things too.
    ours = "folders named by 32 hexadecimal digits may be deleted"
    yield "folder", f"{root} ({len(sizes)} files, {sum(sizes) / 2**20:.1f} MiB; {ours})"
