"""Who logs in, and with what: user name, password, OAuth2.

Parses these options of `SMTPConfig`; how a login goes is the affair of `login` and `protocol.sasl`.
"""

from typing import Any

from mailbridge.config.auth import may_lack_password
from mailbridge.config.groups import as_secret, as_text, invalid
from mailbridge.config.oauth2 import OAuth2Options, parse_oauth2


def parse_credentials(username: Any, password: Any, auth: tuple[str, ...], oauth2: Any) -> dict[str, Any]:
    if username is not None and not callable(username):
        username = as_text("username", username)
    if password is not None and not callable(password):
        password = as_secret("password", password)
    # Frameworks hand on empty strings for "none"; a user name without a password is a mistake.
    if username == "" and not password:
        username = password = None
    if oauth2 is not None:
        return {"username": username, "password": None, "oauth2": _oauth2(oauth2, username, password)}
    if (username is None) != (password is None) and not (password is None and may_lack_password(auth)):
        missing, given = ("password", "username") if password is None else ("username", "password")
        raise invalid(given, f"is given without {missing}")
    return {"username": username, "password": password, "oauth2": None}


def _oauth2(value: object, username: object, password: object) -> OAuth2Options:
    options = parse_oauth2(value)
    if not username:
        raise invalid("oauth2", "needs username: the mailbox that tokens are for")
    if password:
        raise invalid("password", "can't stand beside oauth2, which logs in without one")
    return options
