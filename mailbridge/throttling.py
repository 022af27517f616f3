"""Which answers of a server mean "less of this, please": the pool has fewer sessions for a while then.

Only what is about this client or the server as a whole counts, never what is about one recipient (x.1.x
and x.2.x of RFC 3463), one message, or the age of an idle session. What can't be told apart from greylisting
(RFC 6647) counts as that: 450 and 451 without an enhanced code, or with x.7.x to RCPT.

* 421 counts: the server ends the session (RFC 5321 section 3.8). Not with x.4.2, bad connection, or without
  an enhanced code in place of the answer on a session that was kept: that is how idle ones are ended.
* 432 counts: too many sessions at once, says Microsoft 365. Not with x.7.12: a password has to be moved
  (RFC 4954 section 6).
* 454 counts: a temporary failure of authentication (RFC 4954 section 6), which is what Gmail says to too many
  logins; within a transaction, Amazon SES for a rate exceeded. Not to STARTTLS: no TLS just now (RFC 3207).
* 450, 451 and 452 count with x.3.2, the system does not accept messages, and x.4.5, congestion (RFC 3463);
  and, but to RCPT, with x.7.0 and x.7.1 (Postfix, of one client; Gmail), x.7.28 (mail flood, says the
  registry of RFC 5248), and x.7.500 and above (Microsoft 365).
"""

from mailbridge.errors import MailbridgeError, RecipientsRefused
from mailbridge.results import Reply
from mailbridge.retry import is_stale

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
