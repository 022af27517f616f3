"""What follows from an error of one server. Pure: it decides, and others act.

* May the message go to another server? Only if it is known not to be sent, and only if the server, or the
  way to it, is what failed. A refused sender, recipient or content is final: asking other servers until
  one accepts is what spammers do.
* Does it count against the server? A server that fails often enough is passed over for a while. A refusal
  never counts: a server that refuses a message works.
* Is the message tried again, and after how long? The replay on a stale connection is no retry and is always
  on; see `is_stale`.
* Does the server ask for less? Then the pool has fewer connections for a while. Only an answer about this
  client or about the server as a whole counts, never one about a recipient (x.1.x and x.2.x of RFC 3463), a
  message, or the age of an idle connection. What cannot be told apart from greylisting (RFC 6647) counts as
  greylisting: 450 and 451 without an enhanced code, or with x.7.x to RCPT.

  * 421 counts: the server ends the session (RFC 5321 section 3.8). Not with x.4.2, bad connection, and not
    without an enhanced code on a connection that was kept: idle ones are ended so.
  * 432 counts: too many connections at once (Microsoft 365). Not with x.7.12: a password has to be moved
    (RFC 4954 section 6).
  * 454 counts: a temporary failure of authentication (RFC 4954 section 6), which Gmail answers to too many
    logins; within a transaction, Amazon SES for a rate exceeded. Not to STARTTLS: no TLS now (RFC 3207).
  * 450, 451 and 452 count with x.3.2, the system does not accept messages, and x.4.5, congestion (RFC 3463);
    and, but to RCPT, with x.7.0 and x.7.1 (Postfix, of one client; Gmail), x.7.28 (mail flood, in the
    registry of RFC 5248), and x.7.500 and above (Microsoft 365).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from mailbridge.config.groups import RetryOptions
from mailbridge.errors import (
    AuthenticationFailed,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    MailbridgeError,
    MessageTooLarge,
    NotSupported,
    PoolTimeout,
    ProtocolViolation,
    RateUnavailable,
    RecipientsRefused,
    Refused,
    TLSFailed,
)
from mailbridge.reply import Reply

Status = tuple[int, int]  # subject and detail of RFC 3463

_IDLE: Status = (4, 2)
_PASSWORD_TRANSITION: Status = (7, 12)
_CONGESTION: frozenset[Status] = frozenset({(3, 2), (4, 5)})
_POLICY = frozenset({0, 1, 28})
_FIRST_OF_MICROSOFT = 500  # the registry is far below; these are said by nobody else


def is_throttling(error: MailbridgeError, *, on_reused: bool = False) -> bool:
    """Whether the server asks for fewer sessions, or fewer messages, by what it answered.

    `on_reused`: it was said on a session that had been idle before.
    """
    if on_reused and is_stale(error) and (error.reply is None or error.reply.enhanced is None):
        return False
    if isinstance(error, RecipientsRefused):
        return any(_is_request_for_less(reply, error.stage) for reply in error.rejected.values())
    return error.reply is not None and _is_request_for_less(error.reply, error.stage)


def is_connection_limit(error: MailbridgeError) -> bool:
    """Whether no more sessions are let in beside those there are: by an answer while one was being opened.

    There is no recipient yet, so 450, 451 and 452 need no enhanced code to tell them from greylisting.
    """
    reply = error.reply
    return is_throttling(error) or (
        reply is not None and reply.enhanced is None and reply.code in (450, 451, 452)
    )


def _is_request_for_less(reply: Reply, stage: str | None) -> bool:
    status = reply.enhanced[1:] if reply.enhanced is not None else None
    match reply.code:
        case 421:
            return status != _IDLE
        case 432:
            return status != _PASSWORD_TRANSITION
        case 454:
            return stage != "tls"
        case 450 | 451 | 452 if status is not None:
            return status in _CONGESTION or (stage != "rcpt_to" and _is_policy(*status))
    return False


def _is_policy(subject: int, detail: int) -> bool:
    return subject == 7 and (detail in _POLICY or detail >= _FIRST_OF_MICROSOFT)


def pause_before_next(
    error: MailbridgeError, attempt: int, options: RetryOptions, random: Callable[[], float]
) -> float | None:
    """Seconds to wait before attempt `attempt + 1`; None: give up.

    Only a transient error whose outcome is known to be "not sent" is worth another attempt.
    `random` gives numbers from 0 to 1, so that many processes do not come back at once.
    """
    if not error.is_transient or error.outcome_unknown or attempt >= options.attempts:
        return None
    pause = min(options.max_delay, options.first_delay * options.factor ** (attempt - 1))
    return pause * (1 - options.jitter * random())


def is_stale(error: MailbridgeError) -> bool:
    """Whether a *reused* session turned out to be dead before the message was committed.

    Then the message goes once more, on a fresh session: nothing was accepted, and nothing is
    known against the server. 451 4.4.2 is how Amazon SES ends an idle session; 530 and 535 to MAIL
    say that the login no longer counts, say because the access token has ended.
    """
    if error.outcome_unknown or error.stage == "final":  # an answer to the dot is about the message
        return False
    if isinstance(error, (ConnectionLost, TLSFailed)):
        return True
    reply = error.reply
    if reply is None:
        return False
    is_login_over = error.stage == "mail_from" and reply.code in (530, 535)
    return is_login_over or (reply.code == 451 and reply.enhanced == (4, 4, 2))


# Where a session is still being opened: what is missing then is missing for every message.
_OPENING = frozenset({"dns", "tcp", "proxy", "greeting", "ehlo", "tls", "auth", "token"})


class Health(Enum):
    """What is known of a server after it was tried."""

    WELL = "well"
    FAILING = "failing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Judgement:
    """`may_go_elsewhere`: another server may get the message. `health`: of the server that failed."""

    may_go_elsewhere: bool
    health: Health


def judge(error: MailbridgeError) -> Judgement:
    """What follows from an error of one server."""
    judgement = _judge(error)
    if error.outcome_unknown or error.accepted:  # somebody has it, or may have it
        return Judgement(False, judgement.health)
    return judgement


def _judge(error: MailbridgeError) -> Judgement:
    match error:
        case Refused():
            return _judge_refusal(error)
        case NotSupported():
            # No STARTTLS or no AUTH is a fault of the server; SMTPUTF8 is the need of one message.
            is_for_all = error.stage in _OPENING
            return Judgement(True, Health.FAILING if is_for_all else Health.WELL)
        case MessageTooLarge():
            return Judgement(True, Health.WELL)  # servers differ in how much they take
        case ConnectFailed() | AuthenticationFailed() | ConnectionLost() | ProtocolViolation():
            return Judgement(True, Health.FAILING)
        case PoolTimeout() | RateUnavailable():
            # Every connection that we allow ourselves is busy, which may well mean that the server is well;
            # or nobody could say whether this server may have one more.
            return Judgement(True, Health.UNKNOWN)
        case DeadlineExceeded():
            # Its own share of the time, since with the time of the send all is over. In the queue, before
            # any stage, nobody waited for the server.
            return Judgement(True, Health.FAILING if error.stage else Health.UNKNOWN)
        case _:
            # A configuration or a message that can't work shows at once, not on the day the first server
            # is down; a closed mailer sends nothing.
            return Judgement(False, Health.UNKNOWN)


def _judge_refusal(error: Refused) -> Judgement:
    if isinstance(error, RecipientsRefused):
        # Without an enhanced code 450 and 451 are how greylisting is said: about the recipient.
        is_failing = all(_is_trouble(reply) for reply in error.rejected.values())
        return Judgement(is_failing, Health.FAILING if is_failing else Health.WELL)
    reply, stage = error.reply, error.stage
    if reply is None:
        return Judgement(False, Health.WELL)
    if stage == "mail_from" and reply.code in (530, 535):  # RFC 4954 section 6: about the login
        return Judgement(True, Health.FAILING)
    if not reply.is_transient:
        return Judgement(False, Health.WELL)
    if _is_trouble(reply) or (_is_unclassified(reply) and reply.code in (451, 452)):
        # RFC 5321 section 4.2.2: local error in processing, insufficient system storage.
        return Judgement(True, Health.FAILING)
    # Before the content, policy (x.7.z) is about who we are: too much mail from this account, say. Then,
    # it is about what was read. 454 is how Amazon SES says that, without an enhanced code.
    is_policy = _subject(reply) == 7 or (_is_unclassified(reply) and reply.code == 454)
    return Judgement(is_policy and stage in ("mail_from", "data"), Health.WELL)


def _is_trouble(reply: Reply) -> bool:
    """4.3.z, the server's own state, and 4.4.z, its network (RFC 3463 section 3.4 and 3.5).

    But not x.3.3 and x.3.4: what this message asks for, and its size.
    """
    if not reply.is_transient or reply.enhanced is None:
        return False
    _, subject, detail = reply.enhanced
    return subject == 4 or (subject == 3 and detail not in (3, 4))


def _subject(reply: Reply) -> int:
    return reply.enhanced[1] if reply.enhanced is not None else 0


def _is_unclassified(reply: Reply) -> bool:
    """Without an enhanced code, or with 4.0.z, which says no more than the code."""
    return _subject(reply) == 0
