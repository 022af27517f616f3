"""Whether a failed send is tried again, and after how long. Pure: it decides, the mailer acts.

The replay of a stale session is not a retry and is always on; see `is_stale`.
"""

from collections.abc import Callable

from mailbridge.config.groups import RetryOptions
from mailbridge.errors import ConnectionLost, MailbridgeError, TLSFailed


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
