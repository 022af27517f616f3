"""`make bench`: every client really sends, and what is counted of mailbridge is what it promises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import benchmarks.__main__ as bench
from benchmarks.server import Target, scripted_server

RECIPIENTS = 3
HOW_OFTEN = {RECIPIENTS: 2}


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with scripted_server("for its own test") as server:
        yield server


@pytest.mark.parametrize(("name", "peer"), [(name, peer) for name, peer, _ in bench.PEERS])
def test_every_client_sends_or_is_named(
    target: Target, name: str, peer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = bench.run(target, name, peer, HOW_OFTEN, RECIPIENTS)
    if row is None:
        library = peer.removesuffix("_kept_open")
        assert f"{name} is left out: {library} is not installed" in capsys.readouterr().out
        return
    assert row.messages == 2
    opens_each_time = peer in ("djangos_own", "flask_mail", "mailbridge_in_django_without_pool")
    assert row.connections == (2 if opens_each_time else 0)
    if peer.startswith("mailbridge") and not opens_each_time:
        assert row.round_trips == 2.0
    else:
        assert row.round_trips >= 3 + RECIPIENTS


def test_the_time_is_told_in_relation_to_mailbridge(capsys: pytest.CaptureFixture[str]) -> None:
    def row(name: str, wall: float) -> bench.Row:
        return bench.Row(name=name, messages=2, connections=0, round_trips=2.0, wall=wall, cpu=0.0015)

    bench.print_rows(50, [row("slow", 0.3), row(bench.REFERENCE, 0.1)])
    *_, slow, ours = capsys.readouterr().out.strip().splitlines()
    assert slow.split()[-3:] == ["2.0", "3.0", "1.5"]
    assert ours.split()[-3:] == ["2.0", "1.0", "1.5"]


@pytest.mark.parametrize(
    ("statement", "is_known"), [("import smtplib", True), ("import not_there_at_all", False)]
)
def test_the_cost_of_an_import(statement: str, is_known: bool) -> None:
    assert bool(bench.import_cost(statement)) is is_known
