"""What an error says of its server, and whether another server should get the message. Pure.

The one place where this is decided. Two questions, since they have different answers:

* May the message go to another server? Only if it is known not to be sent, and only if the other server
  may well answer otherwise: then what failed is the server, or the way to it. A refused sender,
  recipient or content is refused; asking elsewhere until somebody takes it is what spammers do.
* Does it speak against the server? Then it is passed over for a while, once that happens often enough.
  A refusal never does: a server that says no is well.
"""

from dataclasses import dataclass
from enum import Enum

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
)
from mailbridge.results import Reply

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
