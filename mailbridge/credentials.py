"""Who logs in, by which mechanisms, and whether the channel is safe enough for it."""

from collections.abc import Callable
from functools import partial

from mailbridge.config import SMTPConfig
from mailbridge.errors import AuthenticationFailed, ConfigurationError, NotSupported
from mailbridge.protocol import sasl
from mailbridge.protocol.capabilities import Capabilities
from mailbridge.results import printable
from mailbridge.secret import Secret


def require_safe_channel(*, is_safe: bool) -> None:
    """Credentials go over TLS, or to this very machine, or where the user took the risk."""
    if not is_safe:
        raise ConfigurationError(
            "The password would travel in clear text",
            stage="auth",
            hint="Use security='starttls' or 'tls'; allow_insecure_auth=True takes the risk.",
        )


def usable_mechanisms(config: SMTPConfig, capabilities: Capabilities) -> list[Callable[[], sasl.Mechanism]]:
    """The mechanisms to try, strongest first or as `auth` orders them, with the credentials of now.

    Raises `NotSupported` if AUTH is not offered: a send without the configured login would be
    another mail than was asked for. `AuthenticationFailed` if no mechanism fits.
    """
    if "AUTH" not in capabilities:
        raise NotSupported(
            "SMTP AUTH extension not supported by server",
            extension="AUTH",
            stage="auth",
            hint="Remove username and password if this server takes mail without.",
        )
    offered = capabilities.auth_mechanisms
    names = sasl.candidates(config.auth or "auto", offered)
    if not names:
        shown = printable(", ".join(offered)) or "no mechanism"
        allowed = ", ".join(config.auth or sasl.RANKING)
        raise AuthenticationFailed(f"The server offers {shown}; usable are {allowed}", stage="auth")
    credentials = sasl.Credentials(_value(config.username).reveal(), _value(config.password))
    return [partial(sasl.mechanism, name, credentials) for name in names]


def _value(source: object) -> Secret:
    """A credential as configured: a string, a secret, or a callable that gives one now."""
    value = source() if callable(source) else source
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ConfigurationError(f"A credential must be a string, not {type(value).__name__}", stage="auth")
    return Secret(value)
