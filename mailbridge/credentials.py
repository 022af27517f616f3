"""Who logs in, by which mechanisms, and whether the channel is safe enough for it."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.errors import AuthenticationFailed, ConfigurationError, NotSupported
from mailbridge.results import printable
from mailbridge.secret import Secret
from mailbridge.smtp import sasl
from mailbridge.smtp.capabilities import Capabilities

NO_BINDINGS: Mapping[str, bytes] = MappingProxyType({})


def require_safe_channel(*, is_safe: bool) -> None:
    """Credentials go over TLS, or to this very machine, or where the user took the risk."""
    if not is_safe:
        raise ConfigurationError(
            "The password would travel in clear text",
            stage="auth",
            hint="Use security='starttls' or 'tls'; allow_insecure_auth=True takes the risk.",
        )


def usable_mechanisms(
    config: SMTPConfig,
    capabilities: Capabilities,
    *,
    bindings: Mapping[str, bytes] = NO_BINDINGS,
    token: Secret | None = None,
    remember: Callable[[Secret], object] = bool,
) -> list[Callable[[], sasl.Mechanism]]:
    """The mechanisms to try, strongest first or as `auth` orders them, with the credentials of now.

    `bindings`: the channel bindings of the connection, by type; `token`: an OAuth2 access token.
    `remember` is told the password and the token, which replies may quote from here on.
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
    credentials = sasl.Credentials(
        "" if config.username is None else _value(config.username).reveal(),
        None if config.password is None else _value(config.password),
        token=token,
        host=config.host,
        port=config.port,
        bindings=bindings,
    )
    for secret in (credentials.password, credentials.token):
        if secret is not None:
            remember(secret)
    names = sasl.candidates(config.auth or "auto", offered, credentials)
    if not names:
        shown = printable(", ".join(offered)) or "no mechanism"
        usable = sasl.candidates(config.auth or "auto", sorted(sasl.AVAILABLE), credentials)
        allowed = ", ".join(config.auth or usable)
        raise AuthenticationFailed(f"The server offers {shown}; usable are {allowed}", stage="auth")
    return [partial(sasl.mechanism, name, credentials, offered) for name in names]


def _value(source: object) -> Secret:
    """A credential as configured: a string, a secret, or a callable that gives one now."""
    value = source() if callable(source) else source
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ConfigurationError(f"A credential must be a string, not {type(value).__name__}", stage="auth")
    return Secret(value)
