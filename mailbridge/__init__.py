"""mailbridge: an SMTP client with one connection pool per process.

Only the names listed here are public. They are loaded when first asked for (PEP 562), so that
`import mailbridge` costs a web application's start next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailbridge.client.connection import SMTPConnection
    from mailbridge.config.auth import needs_no_password
    from mailbridge.config.defaults import MessageDefaults
    from mailbridge.config.dkim import DKIMOptions
    from mailbridge.config.groups import (
        PoolOptions,
        RateLimiter,
        RateOptions,
        RetryOptions,
        Timeouts,
        TLSOptions,
    )
    from mailbridge.config.layers import layered_options, with_each_timeout
    from mailbridge.config.masking import mask_settings, without_userinfo
    from mailbridge.config.oauth2 import OAuth2Options
    from mailbridge.config.proxies import ProxyURL, register_proxy
    from mailbridge.config.smtp_config import ServerOptions, SMTPConfig
    from mailbridge.delivery.session import Session
    from mailbridge.delivery.stats import ServerStats
    from mailbridge.errors import (
        AuthenticationFailed,
        CertificateRejected,
        ConfigurationError,
        ConnectFailed,
        ConnectionLost,
        ConnectTimeout,
        DeadlineExceeded,
        GreetingRefused,
        InvalidAddress,
        InvalidMessage,
        MailbridgeError,
        MessageRefused,
        MessageTooLarge,
        NameNotResolved,
        NobodyListens,
        NotSupported,
        PoolClosed,
        PoolTimeout,
        ProtocolViolation,
        ProxyFailed,
        RateUnavailable,
        RecipientsRefused,
        Refused,
        ReplyTimeout,
        SenderRefused,
        TLSFailed,
        TLSModeMismatch,
        TokenUnavailable,
    )
    from mailbridge.mailer import Mailer
    from mailbridge.message.attachment import Attachment
    from mailbridge.message.delivery_options import DSN, DeliverBy, EnvelopeOptions, Recipient
    from mailbridge.message.envelope import Envelope
    from mailbridge.message.message import Message
    from mailbridge.message.priority import Priority
    from mailbridge.net.channel import Channel, open_channel
    from mailbridge.oauth2.store import FileTokenStore, MemoryTokenStore, TokenStore
    from mailbridge.oauth2.token import AccessToken
    from mailbridge.pool import PoolStats
    from mailbridge.registry import close_all, mailer_for
    from mailbridge.rendering.files import FileContent
    from mailbridge.rendering.render import Rendered, render
    from mailbridge.reply import Reply
    from mailbridge.results import SendResult
    from mailbridge.secret import Secret, clears_locals, shown_name
    from mailbridge.smtp.sasl.registry import register_sasl
    from mailbridge.verify import Stage, VerifyReport

_HOMES = {
    "client.connection": ("SMTPConnection",),
    "config.auth": ("needs_no_password",),
    "config.defaults": ("MessageDefaults",),
    "config.dkim": ("DKIMOptions",),
    "config.groups": (
        "PoolOptions",
        "RateLimiter",
        "RateOptions",
        "RetryOptions",
        "Timeouts",
        "TLSOptions",
    ),
    "config.layers": (
        "layered_options",
        "with_each_timeout",
    ),
    "config.masking": (
        "mask_settings",
        "without_userinfo",
    ),
    "config.oauth2": ("OAuth2Options",),
    "config.proxies": (
        "ProxyURL",
        "register_proxy",
    ),
    "config.smtp_config": (
        "ServerOptions",
        "SMTPConfig",
    ),
    "delivery.session": ("Session",),
    "delivery.stats": ("ServerStats",),
    "mailer": ("Mailer",),
    "message.attachment": ("Attachment",),
    "message.delivery_options": (
        "DSN",
        "DeliverBy",
        "EnvelopeOptions",
        "Recipient",
    ),
    "message.envelope": ("Envelope",),
    "message.message": ("Message",),
    "message.priority": ("Priority",),
    "net.channel": (
        "Channel",
        "open_channel",
    ),
    "oauth2.store": (
        "FileTokenStore",
        "MemoryTokenStore",
        "TokenStore",
    ),
    "oauth2.token": ("AccessToken",),
    "pool": ("PoolStats",),
    "registry": (
        "close_all",
        "mailer_for",
    ),
    "rendering.files": ("FileContent",),
    "rendering.render": (
        "Rendered",
        "render",
    ),
    "reply": ("Reply",),
    "results": ("SendResult",),
    "secret": (
        "Secret",
        "clears_locals",
        "shown_name",
    ),
    "smtp.sasl.registry": ("register_sasl",),
    "verify": (
        "Stage",
        "VerifyReport",
    ),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "DKIMOptions",
    "DSN",
    "AccessToken",
    "Attachment",
    "AuthenticationFailed",
    "CertificateRejected",
    "Channel",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionLost",
    "DeadlineExceeded",
    "DeliverBy",
    "Envelope",
    "EnvelopeOptions",
    "FileContent",
    "FileTokenStore",
    "GreetingRefused",
    "InvalidAddress",
    "InvalidMessage",
    "Mailer",
    "MailbridgeError",
    "MemoryTokenStore",
    "Message",
    "MessageDefaults",
    "MessageRefused",
    "MessageTooLarge",
    "NameNotResolved",
    "NobodyListens",
    "NotSupported",
    "OAuth2Options",
    "PoolClosed",
    "PoolOptions",
    "PoolStats",
    "PoolTimeout",
    "Priority",
    "ProtocolViolation",
    "ProxyFailed",
    "ProxyURL",
    "RateLimiter",
    "RateOptions",
    "RateUnavailable",
    "RecipientsRefused",
    "Recipient",
    "Refused",
    "Rendered",
    "Reply",
    "ReplyTimeout",
    "RetryOptions",
    "SMTPConfig",
    "SMTPConnection",
    "Secret",
    "SendResult",
    "SenderRefused",
    "ServerOptions",
    "ServerStats",
    "Session",
    "Stage",
    "TLSFailed",
    "TLSModeMismatch",
    "TLSOptions",
    "Timeouts",
    "TokenStore",
    "TokenUnavailable",
    "VerifyReport",
    "clears_locals",
    "close_all",
    "layered_options",
    "mailer_for",
    "mask_settings",
    "needs_no_password",
    "open_channel",
    "register_proxy",
    "register_sasl",
    "render",
    "shown_name",
    "with_each_timeout",
    "without_userinfo",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'mailbridge' has no attribute {name!r}")
    value = getattr(import_module(f"mailbridge.{_MODULE_OF.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
