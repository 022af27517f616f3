"""The policy of delivery: one table of outcomes under two drivers; and what needs no driver at all."""

from dataclasses import asdict

import pytest

from tests.unit.delivery.outcomes import CASES, DRIVERS


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", CASES)
def test_outcomes(name: str, driver: str) -> None:
    case = CASES[name]
    wanted = {each: list(getattr(case, each)) for each in ("told", "opened", "taken", "pauses")}
    assert asdict(DRIVERS[driver](case)) == wanted
