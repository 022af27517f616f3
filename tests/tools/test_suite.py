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


#: Tests of the whole project, or of a whole folder.
OF_A_WHOLE = {
    "test_architecture.py",
    "test_docs.py",
    "test_extras.py",
    "test_floors.py",
    "test_parity.py",
    "test_patterns.py",
    "inbox/test_hostile.py",
    "smtp/flows/test_segments.py",
    "smtp/flows/test_two_at_once.py",
}


def test_a_unit_test_stands_where_its_subject_stands() -> None:
    """`mailbridge/x/y.py` has `tests/unit/x/test_y.py`, and maybe `test_y_after_a_fork.py` beside it."""
    units, subject = ROOT / "tests" / "unit", ROOT / "mailbridge"
    astray = {
        name
        for file in units.rglob("test_*.py")
        if (name := file.relative_to(units).as_posix()) not in OF_A_WHOLE
        and not any(
            f"{file.stem}_".startswith(f"test_{module.stem}_")
            for module in (subject / file.relative_to(units).parent).glob("*.py")
        )
    }
    assert astray == set()
    assert all((units / name).exists() for name in OF_A_WHOLE)
