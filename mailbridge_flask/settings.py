"""From an application's configuration to one `SMTPConfig` for each of its mailers.

`MAILBRIDGE_<NAME>` is the option `<name>` of mailbridge, dicts for groups; it beats Flask-Mail's
`MAIL_*`, which beats the default. Read once, by `init_app()`. Nothing connects.

Keys beside the options: `MAILBRIDGE_MAILERS` (further mailers: {name: options or URL}),
`MAILBRIDGE_DEFAULT_SENDER` (address, or name and address; also within the options of a mailer),
`MAILBRIDGE_ASCII_ATTACHMENTS` (file names in ASCII), and `MAILBRIDGE_SUPPRESS_SEND`, which is not read
here but at each send (see `state.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from flask import Flask

from mailbridge import (
    ConfigurationError,
    MailbridgeError,
    Secret,
    SMTPConfig,
    layered_options,
    mask_settings,
)
from mailbridge_flask import flask_mail_keys
from mailbridge_flask.addresses import AnyAddress, as_pair, sanitize_address

__all__ = ["DEFAULT", "MailerSettings", "Settings", "mask_config", "read_settings"]

PREFIX = "MAILBRIDGE_"
DEFAULT = "default"
#: The names of the keys that are no option of the core.
OWN_NAMES = ("ascii_attachments", "default_sender", "mailers", "suppress_send")
_OPTION_NAMES = ("url", "timeout", *(field.name for field in fields(SMTPConfig)))
_SECRETS = (
    "password",
    "key_password",
    "url",
    "client_secret",
    "refresh_token",
    "access_token",
    "private_key",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailerSettings:
    """One mailer: its server, and its own default sender if it has one."""

    config: SMTPConfig
    default_sender: AnyAddress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an application has configured; `mailers` always has "default"."""

    mailers: Mapping[str, MailerSettings]
    default_sender: AnyAddress | None = None
    ascii_attachments: bool = False


def mask_config(app: Flask, **_: Any) -> None:
    """Let `repr(app.config)`, the debugger and error reporters show `'***'` for what is secret in it.

    The values stay equal to what they were. A receiver of `got_request_exception`, too: what was put into
    the configuration after `init_app()` is masked before anybody sees the page.
    """
    for key, value in list(app.config.items()):
        if key.startswith(PREFIX) or key in flask_mail_keys.KEYS:
            app.config[key] = mask_settings(value, key.removeprefix(PREFIX).removeprefix("MAIL_"))


def read_settings(app: Flask) -> Settings:
    """The settings of `app`. Raises ConfigurationError, which names the key and the nearest known one.

    Takes the application, not its configuration, and seals what is secret at once: no frame of a
    traceback from here shows a password.
    """
    _refuse_unknown_keys(app)
    own = _own_options(app)
    mailers = {
        name: _mailer_settings(f"{_key('mailers')}[{name!r}]", options)
        for name, options in _further_mailers(app).items()
    }
    if DEFAULT not in mailers:
        options = _sealed(layered_options(own, flask_mail_keys.options_of(app, own)))
        mailers[DEFAULT] = _mailer_settings("The configuration of the default mailer", options)
    elif own:
        raise ConfigurationError(
            f"The default mailer is configured in {_key('mailers')}, and by {', '.join(map(_key, own))} too",
            stage="config",
        )
    return Settings(
        mailers=mailers,
        default_sender=_default_sender(app),
        ascii_attachments=bool(flask_mail_keys.first_switch(app, _key("ascii_attachments"))),
    )


def _key(name: str) -> str:
    return PREFIX + name.upper()


def _refuse_unknown_keys(app: Flask) -> None:
    if "MAILBRIDGE" in app.config:
        raise ConfigurationError(
            "The configuration key 'MAILBRIDGE' means nothing in Flask",
            stage="config",
            hint="Each option is a key of its own here, such as MAILBRIDGE_URL or MAILBRIDGE_HOST.",
        )
    for name in list(app.config.get_namespace(PREFIX)):
        if name not in OWN_NAMES and not _is_option(name):
            raise ConfigurationError(
                f"Unknown configuration key {_key(name)!r}", stage="config", hint=_nearest(name)
            )


def _own_options(app: Flask) -> dict[str, Any]:
    """The options among the `MAILBRIDGE_*` keys, under their own names."""
    named = _sealed(app.config.get_namespace(PREFIX))
    return {name: value for name, value in named.items() if name not in OWN_NAMES}


def _is_option(name: str) -> bool:
    """Whether it is in the vocabulary, be it of use in this release or not."""
    try:
        SMTPConfig.from_mapping({name: None})  # None says "not given": only the name is looked at
    except ConfigurationError:
        return False
    return True


def _nearest(name: str) -> str:
    known = [*_OPTION_NAMES, *OWN_NAMES]
    if found := get_close_matches(name, known, n=1, cutoff=0.5):
        return f"Did you mean {_key(found[0])!r}?"
    return f"Known are: {', '.join(_key(each) for each in sorted(known))}."


def _further_mailers(app: Flask) -> dict[str, dict[str, Any]]:
    """The options of each of MAILBRIDGE_MAILERS. Raises ConfigurationError for what has none."""
    mailers = _read_mailers(app)
    for name, options in mailers.items():
        if options is None:
            raise ConfigurationError(
                f"{_key('mailers')}[{name!r}] is neither a dict of options nor a URL", stage="config"
            )
    return {name: options for name, options in mailers.items() if options is not None}


def _read_mailers(app: Flask) -> dict[str, dict[str, Any] | None]:
    mailers = flask_mail_keys.given(app, _key("mailers"))
    if not isinstance(mailers, Mapping):
        return {} if mailers is None else {"...": None}
    return {str(name): _mailer_options(options) for name, options in mailers.items()}


def _mailer_options(options: object) -> dict[str, Any] | None:
    if isinstance(options, str):
        options = {"url": options}
    return _sealed(options) if isinstance(options, Mapping) else None


def _sealed(options: Mapping[Any, Any]) -> dict[str, Any]:
    """`options` with lower-case names, without what is not given (None, ""), secrets covered.

    Environment variables come in capitals (FLASK_MAILBRIDGE_POOL__MAX_SIZE), and what looks like a
    number there comes as one, a password of digits too.
    """
    sealed: dict[str, Any] = {}
    for name, value in options.items():
        name = str(name).lower()
        if name == "headers":  # their names are those of fields
            sealed[name] = value
            continue
        if value is None or value == "":
            continue
        if name in ("username", "password", "key_password") and _is_number(value):
            value = str(value)
        if name in _SECRETS and isinstance(value, str):
            value = Secret(value)
        elif isinstance(value, Mapping):
            value = _sealed(value)
        elif name == "servers" and isinstance(value, (list, tuple)):
            value = [_sealed_server(each) for each in value]
        elif name == "dkim" and isinstance(value, (list, tuple)):
            value = [_sealed(each) if isinstance(each, Mapping) else each for each in value]
        sealed[name] = value
    return sealed


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sealed_server(server: Any) -> Any:
    """A URL or options, which may also stand under `config`."""
    if isinstance(server, str):
        return Secret(server)
    if not isinstance(server, Mapping):
        return server
    sealed = _sealed(server)
    return {**sealed, "config": _sealed_server(sealed["config"])} if "config" in sealed else sealed


def _mailer_settings(where: str, options: dict[str, Any]) -> MailerSettings:
    own = dict(options)
    sender = own.pop("default_sender", None)
    return MailerSettings(
        config=_config(where, own), default_sender=_checked_sender(where, sender) if sender else None
    )


def _config(where: str, options: dict[str, Any]) -> SMTPConfig:
    url = options.pop("url", None)
    try:
        if isinstance(url, Secret):
            return SMTPConfig.from_url(url.reveal(), **options)
        return SMTPConfig.from_mapping(options if url is None else {**options, "url": url})
    except ConfigurationError as error:
        problem = error
    # Outside of the block, so that the frames below, which have seen the URL, are not kept as context.
    raise ConfigurationError(f"{where}: {problem.message}", stage=problem.stage, hint=problem.hint)


def _default_sender(app: Flask) -> AnyAddress | None:
    for key in (_key("default_sender"), "MAIL_DEFAULT_SENDER"):
        if (sender := flask_mail_keys.given(app, key)) is not None:
            return _checked_sender(key, sender)
    return None


def _checked_sender(where: str, sender: object) -> AnyAddress:
    """A str, or name and address in a tuple (a list, where it comes from the environment)."""
    try:
        address = sender if isinstance(sender, str) else as_pair(sender)
        sanitize_address(address)
    except MailbridgeError as error:
        raise ConfigurationError(f"{where} is no sender: {error.message}", stage="config") from error
    return address
