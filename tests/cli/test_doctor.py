from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import bonaface
from bonaface import cli
from bonaface.cli import doctor


def report() -> str:
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_it_names_versions_devices_and_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BONAFACE_CACHE", str(tmp_path))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "pixels").write_bytes(b"x" * (3 << 20))
    text = report()
    assert bonaface.__version__ in text
    assert importlib.metadata.version("onnxruntime") in text
    assert f"{tmp_path} (1 files, 3.0 MiB" in text
    for title in ("versions:", "processor:", "devices:", "extras:", "cache:"):
        assert title in text


def test_a_cache_that_is_not_there_is_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BONAFACE_CACHE", str(tmp_path / "none"))
    assert "(0 files, 0.0 MiB" in report()
    assert not (tmp_path / "none").exists()


def test_missing_libraries_are_named_with_the_line_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = [
        "numpy>=1.26",
        "no-such-library>=2; extra == 'train'",
        "pillow>=11; extra == 'train'",
        "bonaface[train]; extra == 'all'",
        "typer>=0.15; python_version >= '3.8' and extra == \"serve\"",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    assert dict(doctor._extras()) == {
        "all": "missing no-such-library; install with: pip install 'bonaface[all]'",
        "serve": "complete",
        "train": "missing no-such-library; install with: pip install 'bonaface[train]'",
    }


def test_the_base_install_is_enough() -> None:
    """Without the libraries of the extras; they are hidden here, not uninstalled."""
    code = """
import importlib.util, sys
hidden = {"torch", "sklearn", "scipy", "transformers", "lightning_fabric", "onnx", "matplotlib"}
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in hidden else find(name, *a)
sys.argv = ["bonaface", "doctor"]
from bonaface.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"BONAFACE_CACHE": "/nowhere"},
    )
    assert done.returncode == 0, done.stderr
    assert "PyTorch is not installed" in done.stdout
