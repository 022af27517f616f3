"""When a send is tried again: pure decisions."""

import pytest

from mailbridge import (
    CertificateRejected,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    MailbridgeError,
    MessageRefused,
    PoolClosed,
    ProtocolViolation,
    Reply,
    ReplyTimeout,
    SenderRefused,
)
from mailbridge.config.groups import RetryOptions
from mailbridge.delivery.verdicts import is_stale, pause_before_next

FIVE = RetryOptions(attempts=5, first_delay=1, factor=2, max_delay=5, jitter=0.5)


def in_doubt(error: MailbridgeError) -> MailbridgeError:
    error.outcome_unknown = True
    return error


@pytest.mark.parametrize(
    ("error", "is_tried_again"),
    [
        (ConnectFailed("x"), True),
        (ConnectionLost("x"), True),
        (ReplyTimeout("x"), True),
        (ProtocolViolation("x"), True),
        (MessageRefused("x", reply=Reply(451)), True),
        (MessageRefused("x", reply=Reply(554)), False),
        (CertificateRejected("x"), False),
        (PoolClosed("x"), False),
        (in_doubt(ConnectionLost("x")), False),
        (in_doubt(ReplyTimeout("x")), False),
        (in_doubt(DeadlineExceeded("x")), False),
    ],
)
def test_only_transient_and_known_outcomes_are_tried_again(
    error: MailbridgeError, is_tried_again: bool
) -> None:
    assert (pause_before_next(error, 1, FIVE, lambda: 0.0) is not None) is is_tried_again


def test_retries_are_off_by_default() -> None:
    assert pause_before_next(ConnectFailed("x"), 1, RetryOptions(), lambda: 0.0) is None


def test_pauses_double_up_to_their_limit_and_end_with_the_attempts() -> None:
    pauses = [pause_before_next(ConnectFailed("x"), attempt, FIVE, lambda: 0.0) for attempt in range(1, 6)]
    assert pauses == [1, 2, 4, 5, None]


def test_jitter_only_shortens_and_by_no_more_than_its_share() -> None:
    pauses = [
        pause_before_next(ConnectFailed("x"), 2, FIVE, lambda share=share: share) for share in (0.0, 0.5, 1.0)
    ]
    assert pauses == [2.0, 1.5, 1.0]


@pytest.mark.parametrize(
    ("error", "stale"),
    [
        (ConnectionLost("x"), True),
        (ConnectionLost("x", reply=Reply(421)), True),
        (ReplyTimeout("x"), True),
        (SenderRefused("x", sender="a", reply=Reply(451, ("4.4.2 Timeout waiting",), (4, 4, 2))), True),
        (SenderRefused("x", sender="a", reply=Reply(451, ("4.3.0 later",), (4, 3, 0))), False),
        (SenderRefused("x", sender="a", reply=Reply(550)), False),
        (ConnectFailed("x"), False),
        (DeadlineExceeded("x"), False),
        (in_doubt(ConnectionLost("x")), False),
    ],
)
def test_what_shows_that_a_reused_session_was_dead(error: MailbridgeError, stale: bool) -> None:
    assert is_stale(error) is stale
