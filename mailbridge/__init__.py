"""mailbridge: an SMTP client with one connection pool per process.

Only the names listed here are public. They are loaded when first asked for (PEP 562), so that
`import mailbridge` costs a web application's start next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailbridge.attachment import Attachment
    from mailbridge.channel import Channel, open_channel
    from mailbridge.config import SMTPConfig
    from mailbridge.connection import SMTPConnection
    from mailbridge.content_files import FileContent
    from mailbridge.defaults import MessageDefaults
    from mailbridge.dkim_options import DKIMOptions
    from mailbridge.envelope import Envelope
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
    from mailbridge.extensions import DSN, DeliverBy, EnvelopeOptions, Recipient
    from mailbridge.mailer import Mailer
    from mailbridge.masking import mask_settings, without_userinfo
    from mailbridge.mechanisms import register_sasl
    from mailbridge.message import Message
    from mailbridge.oauth2.stores import FileTokenStore, MemoryTokenStore, TokenStore
    from mailbridge.oauth2.tokens import AccessToken
    from mailbridge.oauth2_options import OAuth2Options
    from mailbridge.options import PoolOptions, RetryOptions, Timeouts, TLSOptions
    from mailbridge.pool import PoolStats
    from mailbridge.priorities import Priority
    from mailbridge.proxies import ProxyURL, register_proxy
    from mailbridge.rate_options import RateLimiter, RateOptions
    from mailbridge.registry import close_all, mailer_for
    from mailbridge.rendering import Rendered, render
    from mailbridge.results import Reply, SendResult, Stage, VerifyReport
    from mailbridge.secret import Secret, clears_locals, shown_name
    from mailbridge.server_options import ServerOptions
    from mailbridge.server_stats import ServerStats
    from mailbridge.session import Session

_HOMES = {
    "attachment": ("Attachment",),
    "channel": ("Channel", "open_channel"),
    "config": ("SMTPConfig",),
    "connection": ("SMTPConnection",),
    "content_files": ("FileContent",),
    "defaults": ("MessageDefaults",),
    "dkim_options": ("DKIMOptions",),
    "envelope": ("Envelope",),
    "extensions": ("DSN", "DeliverBy", "EnvelopeOptions", "Recipient"),
    "mailer": ("Mailer",),
    "masking": ("mask_settings", "without_userinfo"),
    "mechanisms": ("register_sasl",),
    "message": ("Message",),
    "oauth2.stores": ("FileTokenStore", "MemoryTokenStore", "TokenStore"),
    "oauth2.tokens": ("AccessToken",),
    "oauth2_options": ("OAuth2Options",),
    "options": ("PoolOptions", "RetryOptions", "TLSOptions", "Timeouts"),
    "pool": ("PoolStats",),
    "priorities": ("Priority",),
    "proxies": ("ProxyURL", "register_proxy"),
    "rate_options": ("RateLimiter", "RateOptions"),
    "registry": ("close_all", "mailer_for"),
    "rendering": ("Rendered", "render"),
    "results": ("Reply", "SendResult", "Stage", "VerifyReport"),
    "secret": ("Secret", "clears_locals", "shown_name"),
    "server_options": ("ServerOptions",),
    "server_stats": ("ServerStats",),
    "session": ("Session",),
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
    "mailer_for",
    "mask_settings",
    "open_channel",
    "register_proxy",
    "register_sasl",
    "render",
    "shown_name",
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
