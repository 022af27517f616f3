"""Memory that is lent: never more than there is, and all of it comes back."""

import pytest

from mailbridge.server.budget import Budget


def test_what_is_lent_comes_back() -> None:
    budget = Budget(100)
    with budget.share() as one, budget.share() as other:
        one(60)
        other(40)
        assert budget.lent == 100
        with pytest.raises(MemoryError):
            other(1)
        assert budget.lent == 100
    assert budget.lent == 0


def test_it_comes_back_after_an_error() -> None:
    budget = Budget(100)
    with pytest.raises(MemoryError), budget.share() as take:
        take(101)
    assert budget.lent == 0
