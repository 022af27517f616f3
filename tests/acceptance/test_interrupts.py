"""An interrupt at any point of a send: the session is not used again, and nobody is told too much.

KeyboardInterrupt, SystemExit and what kills a greenlet are no `Exception`. They are raised here in place of
each single write and read of a send, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from mailbridge import Mailer
from mailbridge.net.stream import Stream
from mailbridge.testing import DEFAULT_KEYWORDS, ScriptedServer
from tests.acceptance.sending import PASSWORD, USER, committed, envelope, mailer_for, message
from tests.servers.certificates import Certificates

pytestmark = pytest.mark.matrix

BIG = 200_000  # several pieces, so that there are points within the content
MOST_POINTS = 100


class GreenletKilled(BaseException):
    """As gevent's GreenletExit: raised out of the blue."""


class Points:
    """Counts the calls on streams, and raises at one of them, before or after it is done."""

    def __init__(self, patch: pytest.MonkeyPatch, interrupt: type[BaseException], *, is_after: bool) -> None:
        self.interrupt, self.is_after = interrupt, is_after
        self.at, self.count, self.has_fired = -1, 0, False
        for name in ("send", "receive", "receive_now", "start_tls"):
            patch.setattr(Stream, name, self._wrapped(getattr(Stream, name)))

    def _wrapped(self, regular: Any) -> Any:
        def call(stream: Stream, *arguments: Any, **options: Any) -> Any:
            self.count += 1
            is_due = self.count == self.at
            self.has_fired |= is_due
            if is_due and not self.is_after:
                raise self.interrupt
            result = regular(stream, *arguments, **options)
            if is_due:
                raise self.interrupt
            return result

        return call

    def arm(self, at: int) -> None:
        self.at, self.count, self.has_fired = at, 0, False

    def disarm(self) -> None:
        self.at = -1


@contextmanager
def served(certificates: Certificates, **options: Any) -> Iterator[tuple[ScriptedServer, Mailer]]:
    identity = certificates.good
    with (
        ScriptedServer(
            tls="starttls",
            certfile=identity.cert_file,
            keyfile=identity.key_file,
            users={USER: PASSWORD},
            max_recipients=options.pop("max_recipients", None),
            keywords=options.pop("keywords", DEFAULT_KEYWORDS),
        ) as server,
        mailer_for(
            server,
            security="starttls",
            username=USER,
            password=PASSWORD,
            tls={"ca_file": str(certificates.ca_file)},
            timeout=5,
            **options,
        ) as mailer,
    ):
        yield server, mailer


@pytest.mark.parametrize(
    ("interrupt", "is_reused", "is_after"),
    [
        *(
            (KeyboardInterrupt, is_reused, is_after)
            for is_reused in (False, True)
            for is_after in (False, True)
        ),
        (SystemExit, False, True),
        (GreenletKilled, True, False),
    ],
)
def test_at_every_point_of_a_send(
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    interrupt: type[BaseException],
    is_reused: bool,
    is_after: bool,
) -> None:
    points = Points(monkeypatch, interrupt, is_after=is_after)
    doubts = []
    for at in range(1, MOST_POINTS):
        with served(certificates, pool={"max_size": 1}) as (server, mailer):
            if is_reused:
                mailer.send(message(0), envelope=envelope())
            points.arm(at)
            caught: BaseException | None = None
            try:
                mailer.send(message(1, size=BIG), envelope=envelope())
            except interrupt as error:
                caught = error
            points.disarm()
            if caught is None:
                assert not points.has_fired, "somebody has swallowed it"
                break
            in_doubt = bool(getattr(caught, "outcome_unknown", False))
            doubts.append(in_doubt)
            stats = mailer.stats()
            assert (stats.lent, stats.opening, stats.waiting) == (0, 0, 0), stats

            mailer.send(message(2), envelope=envelope())
            taken = committed(server)
            assert taken[2] == 1
            assert taken[1] <= 1
            # Never "not sent" for what the server has.
            assert in_doubt or taken[1] == 0
    else:
        pytest.fail("the send never came to its end")
    assert True in doubts
    assert False in doubts


@pytest.mark.parametrize(
    "one_at_a_time",
    [{"max_recipients": 1}, {"keywords": [*DEFAULT_KEYWORDS, "LIMITS RCPTMAX=1"]}],
    ids=["by refusal", "as announced"],
)
def test_while_the_rest_of_the_recipients_is_served(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, one_at_a_time: dict[str, Any]
) -> None:
    """The first ones have it: to send the message again would be to send it twice."""
    points = Points(monkeypatch, KeyboardInterrupt, is_after=False)
    seen = set()
    for at in range(1, MOST_POINTS):
        with served(certificates, **one_at_a_time) as (server, mailer):
            points.arm(at)
            caught: BaseException | None = None
            try:
                mailer.send(message(1), envelope=envelope("a@b.example", "b@b.example"))
            except KeyboardInterrupt as error:
                caught = error
            points.disarm()
            if caught is None:
                break
            in_doubt = bool(getattr(caught, "outcome_unknown", False))
            taken = committed(server)[1]
            seen.add((taken, in_doubt))
            assert in_doubt or taken == 0
    assert {taken for taken, _ in seen} >= {0, 1}


def test_in_a_batch(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of outcomes is lost with the interrupt; that some were sent must not be."""
    points = Points(monkeypatch, KeyboardInterrupt, is_after=True)
    for at in range(1, MOST_POINTS):
        with served(certificates) as (server, mailer):
            points.arm(at)
            caught: BaseException | None = None
            try:
                mailer.send_many([(message(n), envelope()) for n in (1, 2, 3)])
            except KeyboardInterrupt as error:
                caught = error
            points.disarm()
            taken = committed(server)
            assert mailer.stats().lent == 0
            if caught is None:
                assert taken == {1: 1, 2: 1, 3: 1}
                return
            assert bool(getattr(caught, "outcome_unknown", False)) or not taken
    pytest.fail("the batch never came to its end")


def test_between_two_messages_of_a_session(certificates: Certificates) -> None:
    """An interrupt of the caller's own, between two messages, gives the session back as it is."""
    with served(certificates, pool={"max_size": 1}) as (_, mailer):
        with suppress(KeyboardInterrupt), mailer.session() as session:
            session.send(message(1), envelope=envelope())
            raise KeyboardInterrupt
        assert (mailer.stats().lent, mailer.stats().idle) == (0, 1)
        assert mailer.send(message(2), envelope=envelope()).connection_reused
