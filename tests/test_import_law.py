"""The import law of docs/ARCHITECTURE.md, read from the source with `ast`."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import bonaface

# A module imports only from earlier rows, or from earlier names in its own row.
ROWS = (
    "errors files tars ahead",
    "config layouts samples heif images video stream faces crops people preprocess signals "
    "corruptions forge drawn augment scores metrics fairness calibration provenance verdict "
    "cropping forging streaming mixing splitting sharding importing framing facts copies probes "
    "audit equalising",
    "onnxfile bundle runtimes judging following detector batches models freezing history "
    "checkpoints hardening devices training tuning",
    "evaluate paper annotate compare attacks stress explain export bench scan reproduce report",
    "service cli",
)
ORDER = {name: (row, at) for row, names in enumerate(ROWS) for at, name in enumerate(names.split())}
TORCH = {"torch", "lightning", "lightning_fabric", "transformers", "efficientnet_lite_pytorch"}
TORCH_HOMES = {
    *("batches", "models", "freezing", "history", "checkpoints", "hardening", "devices"),
    *("training", "tuning"),
    *("stress", "attacks", "explain", "export", "bench"),
}
TORCH_FILES = {
    "cli/doctor.py",  # asks PyTorch for its devices, if it is there
    "cli/models.py",  # builds every network without memory, to count its weights
}
PACKAGE = "bonaface"


def imported(source: str, path: str) -> Iterator[tuple[int, str, str | None]]:
    """(line, module, name or None) of every import that runs, wherever in the file it stands."""
    package = [PACKAGE, *path.split("/")[:-1]]
    stack: list[ast.AST] = [ast.parse(source)]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            stack += node.orelse
            continue
        stack += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name != PACKAGE or alias.asname:
                    yield node.lineno, alias.name, None
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == PACKAGE:
            yield node.lineno, PACKAGE, node.attr  # after `import bonaface`
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, module, alias.name
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).split(".")[-1]
            first = node.args[0]
            if called in {"import_module", "__import__"} and isinstance(first, ast.Constant):
                yield node.lineno, str(first.value), None


def target(files: Mapping[str, str], module: str, name: str | None) -> str | None:
    """The file that an import of ours reaches; None: not ours."""
    if module.split(".", maxsplit=1)[0] != PACKAGE:
        return None
    parts = module.split(".")[1:]
    for stem in ("/".join([*parts, name]) if name else None, "/".join(parts)):
        for path in () if stem is None else (f"{stem}.py", f"{stem}/__init__.py".lstrip("/")):
            if path in files:
                return path
    return f"{'/'.join(parts) or '__init__'}.py"


def unit(path: str) -> str:
    return path.split("/", maxsplit=1)[0].removesuffix(".py")


def violations(files: Mapping[str, str]) -> list[str]:
    """What breaks the law in `files`: path under src/bonaface -> source."""
    found = []
    edges: dict[str, set[str]] = {path: set() for path in files}
    for path, source in sorted(files.items()):
        mine = unit(path)
        if mine in {"__init__", "__main__"}:
            continue
        if mine not in ORDER:
            found.append(
                f"{path}: no row of the import law names {mine!r}; put it into ROWS in "
                "tests/test_import_law.py and into the table of docs/ARCHITECTURE.md"
            )
            continue
        for line, module, name in imported(source, path):
            where = f"{path}:{line}: {mine}"
            if module.split(".")[0] in TORCH and not (mine in TORCH_HOMES or path in TORCH_FILES):
                found.append(f"{where} imports {module}; only {sorted(TORCH_HOMES)} may")
            reached = target(files, module, name)
            if reached is None:
                continue
            theirs = unit(reached)
            if theirs == "__init__":
                if name != "__version__":
                    found.append(f"{where} imports {name!r} from the package; name its module")
            elif theirs == mine:
                edges[path].add(reached)
            elif theirs not in ORDER or ORDER[theirs] >= ORDER[mine]:
                found.append(f"{where} imports {theirs}, which does not come before it")
    return found + [f"{path}: in a circle of imports" for path in circular(edges)]


def circular(edges: Mapping[str, set[str]]) -> list[str]:
    def reach(path: str) -> set[str]:
        seen: set[str] = set()
        stack = list(edges.get(path, ()))
        while stack:
            at = stack.pop()
            if at not in seen:
                seen.add(at)
                stack += edges.get(at, ())
        return seen

    return [path for path in sorted(edges) if path in reach(path)]


def test_the_package_keeps_the_law() -> None:
    root = Path(bonaface.__file__).parent
    files = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in root.rglob("*.py")
    }
    assert len(files) > 10
    assert violations(files) == []


def test_the_table_of_the_architecture_page_is_this_one() -> None:
    page = Path(__file__).parents[1] / "docs" / "ARCHITECTURE.md"
    if not page.is_file():
        pytest.skip("not in a checkout")
    text = page.read_text(encoding="utf-8").replace("|", " ")
    table = [
        line.split()[1:] for line in text.splitlines() if line[:2] in {f"{n} " for n in "12345"}
    ]
    assert table == [row.split() for row in ROWS]


@pytest.mark.parametrize(
    "source",
    [
        "from bonaface.verdict import Bands",
        "import bonaface.verdict",
        "from .verdict import answer",
        "from . import verdict",
        "from bonaface import verdict",
        "import bonaface\nbonaface.verdict.Bands",
        "def late():\n    from bonaface.verdict import Bands",
        "class A:\n    def late(self):\n        import bonaface.verdict as v",
        "try:\n    import bonaface.verdict\nexcept ImportError:\n    pass",
        "if True:\n    import bonaface.verdict",
        "import importlib\nimportlib.import_module('bonaface.verdict')",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n"
        "    from bonaface.verdict import Bands",
    ],
)
def test_an_import_from_a_later_module_is_found(source: str) -> None:
    (message,) = violations({"samples.py": source, "verdict.py": "", "__init__.py": ""})
    assert "samples imports verdict" in message


@pytest.mark.parametrize(
    "source",
    [
        "from bonaface.errors import DataError",
        "from .errors import DataError",
        "from bonaface.config import Config",
        "from bonaface import __version__",
        "import bonaface\nbonaface.__version__",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .verdict import answer",
        "import typing\nif typing.TYPE_CHECKING:\n    import torch",
        "import bonaface_other.verdict",
        "import torchlike",
    ],
)
def test_lawful_imports_pass(source: str) -> None:
    files = dict.fromkeys(["errors.py", "config.py", "verdict.py", "__init__.py"], "")
    assert violations(files | {"samples.py": source}) == []


def test_a_package_counts_as_one_module_from_outside() -> None:
    files = {
        "models/__init__.py": "from bonaface.models.cnn import build",
        "models/cnn.py": "from ..preprocess import Preprocess\nimport torch",
        "preprocess.py": "",
        "detector.py": "from bonaface.models.cnn import build",
    }
    (message,) = violations(files)
    assert message.startswith("detector.py:1: detector imports models")
    files["detector.py"] = ""
    files["models/cnn.py"] = "from ...errors import DataError\nfrom ..training import fit"
    assert any("models imports training" in message for message in violations(files))


def test_circles_inside_a_package_are_found() -> None:
    files = {
        "models/__init__.py": "from bonaface.models import cnn",
        "models/cnn.py": "def late():\n    from .resnet import part",
        "models/resnet.py": "from bonaface.models.cnn import part",
    }
    assert violations(files) == [
        "models/cnn.py: in a circle of imports",
        "models/resnet.py: in a circle of imports",
    ]


@pytest.mark.parametrize("name", ["torch", "torch.nn", "transformers", "lightning.fabric"])
def test_torch_stays_right_of_the_bar(name: str) -> None:
    (message,) = violations({"metrics.py": f"def late():\n    import {name}"})
    assert name in message
    (message,) = violations({"cli/detect.py": f"from {name} import x"})
    assert name in message
    assert violations({"training.py": f"import {name}", "cli/doctor.py": f"import {name}"}) == []


def test_a_module_without_a_row_is_told_what_to_do() -> None:
    (message,) = violations({"novelty.py": ""})
    assert "ROWS" in message
    assert "ARCHITECTURE.md" in message


@pytest.mark.parametrize(
    "source",
    [
        "from bonaface import load_detector",
        "import bonaface\nbonaface.load_detector",
        "import bonaface as b",
    ],
)
def test_the_package_root_is_no_way_round(source: str) -> None:
    (message,) = violations({"__init__.py": "", "metrics.py": source})
    assert "name its module" in message
