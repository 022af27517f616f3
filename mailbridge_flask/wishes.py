"""What a message wishes of the server: `envelope_options`, Flask-Mail's `mail_options`, `rcpt_options`.

Those are ESMTP parameters as they are written; what they mean is told to the core, which checks what the
server offers and writes them itself. Nothing here sends.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mailbridge import InvalidMessage

if TYPE_CHECKING:
    from mailbridge_flask.message import Message

__all__ = ["wishes_of"]

# What the core says by itself where it is due, so that asking for it is no harm.
_SAID_ANYHOW = {"BODY=8BITMIME", "SMTPUTF8"}
_OF_DSN = {"mail_options": ("RET", "ENVID"), "rcpt_options": ("NOTIFY", "ORCPT")}


def wishes_of(message: "Message", further: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the envelope; `further` win over the message's own.

    Raises InvalidMessage for a parameter that nobody would heed.
    """
    own = message.envelope_options
    if not isinstance(own, Mapping):
        raise InvalidMessage(f"envelope_options must be a dict, not {type(own).__name__}")
    return {**_from_parameters(message), **own, **further}


def _from_parameters(message: "Message") -> dict[str, Any]:
    dsn: dict[str, Any] = {}
    wishes: dict[str, Any] = {}
    for kind, names in _OF_DSN.items():
        for option in map(str, getattr(message, kind) or ()):
            name, _, value = option.partition("=")
            if name.upper() in names and value:
                dsn[name.lower()] = _decoded(value)
            elif kind == "mail_options" and option.upper() == "REQUIRETLS":
                wishes["require_tls"] = True
            elif kind == "rcpt_options" or not _is_said_anyhow(name, option):
                raise InvalidMessage(
                    f"{kind} asks for {option!r}, which is not said this way",
                    hint="Message(envelope_options={...}) has what there is: docs/extensions.md.",
                )
    return wishes | ({"dsn": dsn} if dsn else {})


def _decoded(value: str) -> str:
    """From xtext (RFC 3461 section 4), as it would stand in the command."""
    return unquote(value.replace("%", "%25").replace("+", "%"))


def _is_said_anyhow(name: str, option: str) -> bool:
    return option.upper() in _SAID_ANYHOW or (name.upper() == "SIZE" and option[5:].isdigit())
