"""One POST to a token endpoint, over the same way as mail (proxies, time limit), with trust of its own.

HTTP/1.1 by http.client over `channel.open_channel`. No redirects, no cookies, no environment variables.
What the answer means is `answers`'.
"""

import copy
import http.client
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from mailbridge.config.oauth2 import OAuth2Options, require_verification
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Deadline
from mailbridge.errors import MailbridgeError, TLSFailed, TokenUnavailable
from mailbridge.net.channel import Channel, open_channel
from mailbridge.secret import Secret

# Answers have some kilobytes. Whoever sends more is no token endpoint.
LARGEST_ANSWER = 1024 * 1024
# For one request with connecting, where `timeouts.command` sets no limit.
REQUEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer. `retry_after` is in seconds, `date` in seconds since 1970; None if not said."""

    status: int
    content_type: str
    body: Secret
    retry_after: float | None = None
    date: float | None = None


class _Connection(http.client.HTTPConnection):
    """http.client over a channel that is open already."""

    auto_open = 0

    def __init__(self, host: str, port: int | None, channel: Channel) -> None:
        super().__init__(host, port)
        self.sock = channel

    def close(self) -> None:
        """Who opened the channel closes it: http.client would, before the rest of the body was read."""
        self.sock = None


def post(
    config: SMTPConfig, options: OAuth2Options, body: Secret, deadline: Deadline, *, url: str = ""
) -> Answer:
    """Post the form `body` to the token endpoint (or to `url`) and read the whole answer.

    Raises `ConnectFailed` and its kinds, and `TokenUnavailable` for what comes after connecting;
    TimeoutError where `deadline` or the request's own limit ran out meanwhile.
    """
    parts = urlsplit(url or options.token_url)
    is_tls = parts.scheme == "https"
    host = parts.hostname or ""
    limit = deadline.within(config.timeouts.command or REQUEST_SECONDS)
    port = parts.port or (443 if is_tls else 80)
    # A port that is the scheme's own does not belong into the Host field (RFC 9110 section 7.2).
    with _opened(_trusting(config, options), host, port, is_tls=is_tls, limit=limit) as channel:
        connection = _Connection(host, parts.port or port, channel)
        connection.default_port = 443 if is_tls else 80
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", path, body.reveal().encode(), _headers(options))
            return _read(connection.getresponse())
        except (MailbridgeError, TimeoutError):
            raise
        except (http.client.HTTPException, ValueError) as problem:
            what = type(problem).__name__
        except OSError as problem:
            what = problem.strerror or type(problem).__name__
    raise _failed(f"the token server broke off its answer ({what})", transient=True)


def _opened(config: SMTPConfig, host: str, port: int, *, is_tls: bool, limit: Deadline) -> Channel:
    try:
        return open_channel(config, host, port, tls=is_tls, deadline=limit.remaining)
    except TLSFailed as error:
        error.hint = error.hint.replace(" tls.", " oauth2.tls.")  # the options of this server's trust
        raise


def _trusting(config: SMTPConfig, options: OAuth2Options) -> SMTPConfig:
    """`config` with the trust of the token server in the place of that of mail: a relay that is trusted
    blindly, or by a private authority, is no reason to trust whoever answers for the token server."""
    require_verification(options.tls)
    own = copy.copy(config)
    object.__setattr__(own, "tls", options.tls)
    return own


def _headers(options: OAuth2Options) -> dict[str, str]:
    return {
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
        "User-Agent": "mailbridge",
        "Connection": "close",
        **{name: value.reveal() for name, value in options.extra_headers},
    }


def _read(response: http.client.HTTPResponse) -> Answer:
    body = response.read(LARGEST_ANSWER + 1)
    if len(body) > LARGEST_ANSWER:
        raise _failed("the token server's answer is larger than 1 MiB")
    if response.length:  # read(n) says nothing of bytes that never came
        raise http.client.IncompleteRead(b"")
    return Answer(
        status=response.status,
        content_type=(response.getheader("Content-Type") or "").partition(";")[0].strip().lower(),
        body=Secret(body.decode("utf-8", "replace")),
        retry_after=_seconds(response.getheader("Retry-After"), response.getheader("Date")),
        date=_moment(response.getheader("Date")),
    )


def _failed(what: str, *, transient: bool = False) -> TokenUnavailable:
    error = TokenUnavailable(f"No access token: {what}", stage="token")
    error.transient = transient
    return error


def _moment(value: str | None) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except (ValueError, OverflowError, TypeError):
        return None


def _seconds(value: str | None, date: str | None) -> float | None:
    """RFC 9110 section 10.2.3: seconds, or a date, which is compared with the server's own clock."""
    if value is None:
        return None
    if value.strip().isdecimal() and len(value) < 10:
        return float(value)
    ends, now = _moment(value), _moment(date)
    return None if ends is None or now is None else max(0.0, ends - now)
