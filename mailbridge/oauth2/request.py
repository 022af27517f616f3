"""How one new token is had, by the grant that is configured. Remembers nothing; `sources` does."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from mailbridge.config.oauth2 import OAuth2Options
from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.deadline import Deadline
from mailbridge.errors import ConfigurationError, MailbridgeError, TokenUnavailable
from mailbridge.net import aside
from mailbridge.oauth2.endpoint import post
from mailbridge.oauth2.grants import request_body
from mailbridge.oauth2.response import token_of
from mailbridge.oauth2.token import AccessToken
from mailbridge.secret import Secret

#: Gives a new token; the refresh token is the newest that is known.
Ask = Callable[[Secret | None, Deadline], AccessToken]

# What a form holds that is no secret, and may be shown where a server quotes it.
_HARMLESS = {
    *("grant_type", "client_id", "scope", "client_assertion_type", "include_client_id"),
    *("resource", "audience"),
}


def asker(
    config: SMTPConfig, options: OAuth2Options, username: str, wall_clock: Callable[[], float] = time.time
) -> Ask:
    """The way to a new token for `username`. What it raises has no secret in it, not even in its frames'
    variables once `clear_locals` went over them: `MailbridgeError`, or TimeoutError at the deadline."""
    supplier = options.supplier
    if supplier is not None:
        return lambda refresh_token, deadline: _supplied(supplier, wall_clock, deadline)

    def ask(refresh_token: Secret | None, deadline: Deadline) -> AccessToken:
        body = request_body(options, username, refresh_token, wall_clock())
        sent = tuple(Secret(v) for k, v in parse_qsl(body.reveal()) if k not in _HARMLESS)
        sent += tuple(value for _, value in options.extra_headers)
        answer = post(config, options, body, deadline)
        try:
            return token_of(answer, now=wall_clock(), server=options.server, secrets=sent)
        except TokenUnavailable as error:
            error.retry_after = answer.retry_after
            raise

    return ask


def _supplied(
    supplier: Callable[[], Any], wall_clock: Callable[[], float], deadline: Deadline
) -> AccessToken:
    """What the user's own callable gives: a string, or an `AccessToken` that may have an end."""
    try:
        found = aside.within(
            supplier, deadline, what="the provider of access tokens", stage="token", heritage="result"
        )
    except MailbridgeError:
        raise
    except Exception as problem:
        # Not its text: nobody knows what that quotes.
        what = f"the provider raised {type(problem).__name__}"
    else:
        if isinstance(found, Secret):
            found = found.reveal()
        if isinstance(found, str):
            return AccessToken(Secret(found))
        if isinstance(found, AccessToken):
            issued_at = found.issued_at if found.issued_at is not None else wall_clock()
            return AccessToken(found.value, found.expires_at, found.scope, None, issued_at)
        what = f"the provider returned {type(found).__name__}, which is neither str nor AccessToken"
    error = TokenUnavailable(
        f"No access token: {what}", stage="token", hint="Call the provider by itself to see what is wrong."
    )
    error.transient = not what.startswith("the provider returned")
    raise error


def as_token_error(problem: BaseException, options: OAuth2Options) -> MailbridgeError:
    """What went wrong on the way to the token server, as an error of the stage token."""
    if isinstance(problem, (TokenUnavailable, ConfigurationError)):
        problem.stage = "token"
        problem.server = problem.server or (options.server if options.token_url else None)
        return problem
    error = TokenUnavailable(
        f"No access token: {_what(problem)}",
        stage="token",
        server=getattr(problem, "server", None) or options.server,
        hint=getattr(problem, "hint", ""),
    )
    # Whatever the mail server's own rules are: a network that fails may work later.
    error.transient = problem.is_transient if isinstance(problem, MailbridgeError) else True
    return error


def _what(problem: BaseException) -> str:
    if isinstance(problem, MailbridgeError):
        return problem.message
    if isinstance(problem, TimeoutError):
        return "the token server did not answer within the time limit"
    return f"{type(problem).__name__} on the way to the token server"
