"""No lower bound in pyproject.toml admits a version with a published hole: .ci/known-holes.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent.parent
KNOWN = tomllib.loads((ROOT / ".ci" / "known-holes.toml").read_text("utf-8"))
HOLES = KNOWN["hole"]


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    texts = [
        *project["dependencies"],
        *(t for extra in project["optional-dependencies"].values() for t in extra),
    ]
    return [Requirement(text) for text in texts]


def open_holes(wanted: list[Requirement], holes: list[dict[str, str]]) -> list[str]:
    """A line for each requirement whose lowest version has a hole."""
    found = []
    for requirement in wanted:
        floors = [
            Version(each.version) for each in requirement.specifier if each.operator in (">=", "==", "~=")
        ]
        for hole in holes:
            if canonicalize_name(hole["package"]) != canonicalize_name(requirement.name):
                continue
            if not floors or max(floors) < Version(hole["below"]):
                found.append(f"{requirement}: {hole['id']} is closed in {hole['below']}: {hole['what']}")
    return found


def test_no_lower_bound_admits_a_known_hole() -> None:
    assert open_holes(requirements(), HOLES) == []


def test_every_library_that_is_used_was_looked_up_and_no_other() -> None:
    used = {canonicalize_name(requirement.name) for requirement in requirements()} - {"mailbridge-smtp"}
    with_holes = {canonicalize_name(hole["package"]) for hole in HOLES}
    without = {canonicalize_name(name) for name in KNOWN["without"]}
    assert with_holes & without == set()
    assert with_holes | without == used


@pytest.mark.parametrize(
    ("text", "is_open"),
    [("h11", True), ("h11>=0.14", True), ("H11>=0.16", False), ("h11>=0.17,<1", False), ("h12>=0.1", False)],
)
def test_a_bound_that_is_too_low_is_found(text: str, is_open: bool) -> None:
    hole = {"package": "h11", "below": "0.16.0", "id": "CVE-2025-43859", "what": "two answers in one"}
    assert bool(open_holes([Requirement(text)], [hole])) is is_open
