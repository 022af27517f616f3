"""How the suite stands: what its files may take from each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported_by(file: Path) -> Iterator[str]:
    """Each module that a file names in an import, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_nothing_is_imported_from_a_file_of_tests() -> None:
    """What test files share stands in a module without tests."""
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for folder in ("tests", "benchmarks", "testproject")
        for file in (ROOT / folder).rglob("*.py")
        for name in imported_by(file)
        if name.startswith("tests.") and name.rpartition(".")[2].startswith("test_")
    }
    assert not wrong
