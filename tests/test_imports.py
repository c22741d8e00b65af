"""Imports run downwards only: cli → pipeline → {stylize, manifests} (shared design, section 2)."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"cli", "pipeline", "stylize", "manifests"}
# What each room must not know.
FORBIDDEN = {
    "stylize": {"manifests", "pipeline", "cli", "tests", "dask", "distributed", "pyarrow", "fsspec", "click"},
    "manifests": {"stylize", "pipeline", "cli", "tests", "dask", "distributed", "torch", "torchvision", "click"},
    "pipeline": {"cli", "tests", "click"},
}
FILES = sorted(path.relative_to(ROOT) for room in FORBIDDEN for path in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level package of every import, wherever in the file it stands; of relative ones the room."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[0] if node.level else (node.module or "")
            yield node.lineno, package.partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"importlib.import_module", "__import__"}:
            argument = node.args[0] if node.args else None
            if isinstance(argument, ast.Constant):
                yield node.lineno, str(argument.value).partition(".")[0]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_room_imports_nothing_that_it_must_not_know(file):
    forbidden = set(FORBIDDEN[file.parts[0]])
    if file.as_posix() == "manifests/loader.py":
        forbidden -= {"torch"}
    wrong = [f"{file}:{line} imports {name}" for line, name in imported(ROOT / file) if name in forbidden]
    assert not wrong


def test_the_command_line_knows_the_pipeline_click_and_the_standard_library_alone():
    allowed = {"pipeline", "click", *sys.stdlib_module_names}
    wrong = [f"cli.py:{line} imports {name}" for line, name in imported(ROOT / "cli.py") if name not in allowed]
    assert not wrong


def test_every_room_was_looked_at():
    assert {file.parts[0] for file in FILES} == ROOMS - {"cli"}
    assert len(FILES) > 20


def test_no_room_has_a_drawer_for_odds_and_ends():
    assert not [file for file in FILES if file.stem in {"utils", "util", "helpers", "common", "misc"}]
