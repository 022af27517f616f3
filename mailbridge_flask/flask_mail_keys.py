"""What an application says with Flask-Mail's `MAIL_*` keys, in the words of mailbridge.

A key of mailbridge always beats them (see `settings.py`, which calls this). Keys that start with
`MAIL_` and are not listed here belong to somebody else and are left alone.
"""

import logging
from typing import Any

from flask import Flask

from mailbridge import ConfigurationError

__all__ = ["KEYS", "first_switch", "given", "options_of", "switch"]

logger = logging.getLogger("mailbridge.flask")

#: The keys that are read. Flask-Mail has no MAIL_TIMEOUT and no MAIL_SSL_*; Flask-Mailman has.
KEYS = (
    *("MAIL_SERVER", "MAIL_PORT", "MAIL_USE_TLS", "MAIL_USE_SSL", "MAIL_USERNAME", "MAIL_PASSWORD"),
    *("MAIL_TIMEOUT", "MAIL_MAX_EMAILS", "MAIL_DEBUG", "MAIL_SSL_KEYFILE", "MAIL_SSL_CERTFILE"),
    *("MAIL_DEFAULT_SENDER", "MAIL_SUPPRESS_SEND", "MAIL_ASCII_ATTACHMENTS"),
)

# What says where to connect and how safely: with one of these from mailbridge, Flask-Mail's defaults end.
_ENDPOINT = frozenset({"url", "service", "servers", "host", "port", "security"})
# A service and a URL name these, if only by leaving them out, and each of several servers has its own: with
# those, credentials least of all may come from beneath.
_SAID_BY_SERVICE = frozenset({"host", "port", "security"})
_SAID_BY_URL = _SAID_BY_SERVICE | {"username", "password"}
# Flask-Mail's default port, also with STARTTLS. With MAIL_USE_SSL nobody listens there: 465 it is, then.
_DEFAULT_PORT = 25
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def options_of(app: Flask, own: dict[str, Any]) -> dict[str, Any]:
    """The options that the `MAIL_*` keys of `app` give, beside `own` (those of `MAILBRIDGE_*`).

    Flask-Mail's defaults (port 25, no TLS) hold where the application speaks Flask-Mail's language:
    where it has one of its keys, or no key at all, and no key of mailbridge says where to connect.
    """
    options = {
        "host": given(app, "MAIL_SERVER"),
        "port": given(app, "MAIL_PORT"),
        "security": _security(app),
        "timeout": given(app, "MAIL_TIMEOUT"),
        "debug": switch(app, "MAIL_DEBUG"),
        "tls": {"cert_file": given(app, "MAIL_SSL_CERTFILE"), "key_file": given(app, "MAIL_SSL_KEYFILE")},
        "pool": {"max_messages": given(app, "MAIL_MAX_EMAILS") or None},  # 0 was no limit there
        **_credentials(app, own),
    }
    for group in ("tls", "pool"):
        options[group] = {name: value for name, value in options[group].items() if value is not None}
    if not own.keys() & _ENDPOINT and _speaks_flask_mail(app):
        # Nothing but TLS is spoken on 465 (RFC 8314 section 3.3), whatever the flags leave out.
        unsaid = None if str(options["port"]) == "465" else "none"
        options["security"] = options["security"] or unsaid
        has_other_default = options["security"] == "tls" or own.get("protocol") == "lmtp"
        options["port"] = options["port"] or (None if has_other_default else _DEFAULT_PORT)
    beaten = _SAID_BY_SERVICE if "service" in own else frozenset()
    if own.keys() & {"url", "servers"}:
        beaten = _SAID_BY_URL
    return {name: value for name, value in options.items() if value not in (None, {}) and name not in beaten}


def given(app: Flask, key: str) -> Any:
    """What the application says under `key`; an empty string, as environments have it, says nothing."""
    value = app.config.get(key)
    return None if value == "" else value


def switch(app: Flask, key: str) -> bool | None:
    """A truth value, also as text, as environments have it; None where it is not given.

    Raises ConfigurationError for any other text: Flask-Mail took "False" for true.
    """
    value = given(app, key)
    if value is None or isinstance(value, int):
        return None if value is None else bool(value)
    word = str(value).strip().lower()
    if word not in _TRUE and word not in _FALSE:
        raise ConfigurationError(
            f"{key} must be true or false, not this {type(value).__name__}", stage="config"
        )
    return word in _TRUE


def first_switch(app: Flask, key: str) -> bool | None:
    """The truth value under a key of mailbridge, else under that of Flask-Mail."""
    own = switch(app, key)
    return switch(app, key.replace("MAILBRIDGE_", "MAIL_")) if own is None else own


def _speaks_flask_mail(app: Flask) -> bool:
    return any(given(app, key) is not None for key in KEYS) or not any(
        key.startswith("MAILBRIDGE_") for key in app.config
    )


def _security(app: Flask) -> str | None:
    use_tls, use_ssl = switch(app, "MAIL_USE_TLS"), switch(app, "MAIL_USE_SSL")
    if use_tls and use_ssl:
        raise ConfigurationError(
            "MAIL_USE_TLS and MAIL_USE_SSL exclude each other",
            stage="config",
            hint="USE_SSL is TLS from the first byte (port 465), USE_TLS is STARTTLS (port 587).",
        )
    return "tls" if use_ssl else "starttls" if use_tls else None


def _credentials(app: Flask, own: dict[str, Any]) -> dict[str, Any]:
    username, password = given(app, "MAIL_USERNAME"), given(app, "MAIL_PASSWORD")
    if "oauth2" in own:  # which takes the place of a password
        return {"username": username}
    # Which of the two a service or a mechanism can do without, the core knows.
    if own.keys() & {"url", "service", "servers", "auth", "username", "password"} or (username is None) == (
        password is None
    ):
        return {"username": username, "password": password}
    # Flask-Mail logs in only with both, and says nothing; such applications must go on working.
    missing = "MAIL_USERNAME" if username is None else "MAIL_PASSWORD"
    logger.warning("%s is not set, so mail is sent without logging in", missing)
    return {}
