"""The option `oauth2`: where access tokens come from, as one frozen value that can be part of a key.

Parsing and checking only: no file is read and nothing connects. Asking for tokens is `oauth2`'s business.
"""

import hashlib
import json
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from math import isfinite
from typing import Any, Literal
from urllib.parse import urlsplit

from mailbridge.config.groups import TLSOptions
from mailbridge.config.oauth2_providers import PROVIDERS, Provider
from mailbridge.config.values import (
    as_secret,
    as_switch,
    as_text,
    build_group,
    imported,
    invalid,
    shown,
    unknown_option,
)
from mailbridge.errors import ConfigurationError
from mailbridge.secret import Secret, shown_name

Grant = Literal["static", "refresh_token", "client_credentials", "jwt_bearer", "callable"]
Pairs = tuple[tuple[str, Secret], ...]


GRANTS = ("static", "refresh_token", "client_credentials", "jwt_bearer")
_NEEDS_LIBRARY = ("refresh_token", "client_credentials", "jwt_bearer")
_SECRETS = ("client_secret", "refresh_token", "access_token", "private_key")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 section 5.6.2: token
# The request's own: set here, each would make another request of it than the body is.
_OWN_HEADERS = {"host", "content-length", "content-type", "transfer-encoding", "connection"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth2Options:
    """Where access tokens come from. Equal options share tokens; secrets are masked.

    Every option is described in docs/options.md. `expires` is in seconds since 1970. `supplier` is
    the callable where `oauth2` is one. Raises `ConfigurationError` for what can't work, and names
    the extra where a library is missing.
    """

    grant: Grant
    provider: str | None = None
    tenant: str | None = None
    token_url: str = ""
    client_id: str = ""
    client_secret: Secret | None = None
    refresh_token: Secret | None = None
    access_token: Secret | None = None
    expires: float | None = None
    scope: str = field(default="", repr=False)
    private_key: Secret | None = None
    thumbprint: str | None = None
    key_id: str | None = None
    service_account: Secret | str | None = None
    allow_insecure_token_url: bool = False
    extra_params: Pairs = ()
    extra_headers: Pairs = ()
    tls: TLSOptions = field(default_factory=TLSOptions)
    token_store: Any = field(default=None)
    on_refresh: Callable[..., object] | None = None
    supplier: Callable[[], Any] | None = None

    @property
    def server(self) -> str:
        """host:port of the token endpoint, for messages; never the rest of its URL."""
        parts = urlsplit(self.token_url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"

    @property
    def can_renew(self) -> bool:
        """Whether another token can be had than the one that is configured."""
        return self.grant != "static"

    def fingerprint(self, username: str) -> str:
        """A name for the tokens of this user with exactly these options, the same in every process.

        A hash: no secret can be read from it. What is no property of the token (trust, the store,
        callbacks) does not count.
        """
        facts: list[object] = [username]
        for option in fields(self):
            if option.name not in ("tls", "token_store", "on_refresh", "supplier"):
                facts.append([option.name, _plain(getattr(self, option.name))])
        return hashlib.sha256(json.dumps(facts).encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: object) -> object:
    """For hashing only."""
    if isinstance(value, Secret):
        return value.reveal()
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


KNOWN = sorted({option.name for option in fields(OAuth2Options)} - {"supplier"})


def parse_oauth2(value: object) -> OAuth2Options:
    """The options of a mapping; of a callable, or the dotted path of one, that gives tokens."""
    if isinstance(value, OAuth2Options):
        return value
    if isinstance(value, str) or callable(value):
        value = {"provider": value}
    if not isinstance(value, Mapping):
        raise invalid("oauth2", f"must be a mapping of options, or a callable, not {type(value).__name__}")
    for name in value:
        if name not in KNOWN:
            raise unknown_option(str(name), KNOWN, "oauth2.")
    options = {str(name): given for name, given in value.items() if given is not None and given != ""}
    provider = options.get("provider")
    if callable(provider) or (isinstance(provider, str) and "." in provider):
        return _supplied(provider, options)
    return _granted(options)


def _supplied(provider: object, options: dict[str, Any]) -> OAuth2Options:
    others = sorted(set(options) - {"provider"})
    if others:
        raise invalid(f"oauth2.{others[0]}", "can't stand beside a provider that is a callable")
    return OAuth2Options(grant="callable", supplier=_callable("oauth2.provider", provider))


def _granted(options: dict[str, Any]) -> OAuth2Options:
    values: dict[str, Any] = {name: _read(name, given) for name, given in options.items()}
    values["grant"] = grant = _grant(values)
    provider = _provider(values)
    if provider is not None:
        values["token_url"] = values.get("token_url") or _endpoint(provider.token_url, values)
        values.setdefault("scope", provider.scopes.get(grant, ""))
    found = OAuth2Options(**values)
    _require_options(found)
    _require_libraries(found)
    return found


def _read(name: str, value: object) -> object:
    """One option, checked by itself."""
    where = f"oauth2.{name}"
    if name in _SECRETS:
        secret = as_secret(where, value)
        if name != "private_key":  # which is a text of several lines
            as_text(where, secret.reveal())
        return secret
    if name == "service_account":
        return _service_account(value)
    if name == "allow_insecure_token_url":
        return as_switch(where, value)
    if name == "expires":
        return _moment(value)
    if name in ("extra_params", "extra_headers"):
        return _pairs(where, value)
    if name == "on_refresh":
        return _callable(where, value)
    if name == "token_store":
        return _store(value)
    if name == "tls":
        tls = build_group(TLSOptions, where, value)
        require_verification(tls)
        return tls
    if name == "scope" and isinstance(value, (list, tuple)):
        value = " ".join(as_text(where, each) for each in value)
    return as_text(where, value)


def _grant(values: Mapping[str, Any]) -> Grant:
    """As it is said, or else what the given credentials are good for."""
    said = values.get("grant")
    if said is not None:
        if said not in GRANTS:
            raise invalid("oauth2.grant", f"must be one of {', '.join(GRANTS)}, not {shown(said)}")
        return said  # type: ignore[no-any-return]  # one of GRANTS
    if "refresh_token" in values:
        return "refresh_token"
    if "service_account" in values:
        return "jwt_bearer"
    if "client_secret" in values or "private_key" in values:
        return "client_credentials"
    if "access_token" in values:
        return "static"
    raise invalid("oauth2", "names no refresh_token, service_account, client_secret, or access_token")


def _provider(values: dict[str, Any]) -> Provider | None:
    name = values.get("provider")
    if name is None and "service_account" in values:
        name = values["provider"] = "google"
    if name is None:
        return None
    if name not in PROVIDERS:
        raise invalid("oauth2.provider", f"must be one of {', '.join(PROVIDERS)}, not {shown(name)}")
    return PROVIDERS[name]


def _endpoint(template: str, values: Mapping[str, Any]) -> str:
    tenant = values.get("tenant")
    if "{tenant}" not in template:
        return template
    if tenant is None:
        if values["grant"] == "client_credentials":
            raise invalid("oauth2.tenant", "is needed: an application has a token of one tenant only")
        tenant = "common"
    if not re.fullmatch(r"[A-Za-z0-9.-]+", tenant):
        raise invalid("oauth2.tenant", "must be the name or the id of a tenant")
    return template.format(tenant=tenant)


def endpoints(options: OAuth2Options) -> tuple[str, str, str]:
    """The endpoints for the consent of a person: device, authorization, and the scope to ask for."""
    provider = PROVIDERS.get(options.provider or "")
    if provider is None:
        raise invalid("oauth2.provider", "must be google or microsoft for this")
    values = {"tenant": options.tenant, "grant": options.grant}
    device, authorize = (_endpoint(url, values) for url in (provider.device_url, provider.authorize_url))
    return device, authorize, options.scope or provider.consent_scope


def _require_options(found: OAuth2Options) -> None:
    def need(name: str, why: str = "") -> None:
        if not getattr(found, name):
            raise invalid(f"oauth2.{name}", f"is needed for the grant {found.grant}{why}")

    if found.grant == "static":
        need("access_token")
        return
    need("token_url", ", or a provider that is known")
    _check_url(found)
    if found.grant == "refresh_token":
        need("client_id")
        if found.refresh_token is None and found.token_store is None:
            raise invalid("oauth2.refresh_token", "is needed, or a token_store that holds one")
    elif found.grant == "client_credentials":
        need("client_id")
        if (found.client_secret is None) == (found.private_key is None):
            raise invalid("oauth2.client_secret", "or private_key is needed, one of both")
    elif found.service_account is None:
        need("private_key", ", or service_account")
        need("client_id", ": it is who signs")


def _check_url(found: OAuth2Options) -> None:
    try:
        parts = urlsplit(found.token_url)
        is_sound = bool(parts.hostname) and parts.port != 0 and " " not in found.token_url
        has_more = "@" in parts.netloc or bool(parts.fragment)
    except ValueError:
        raise invalid("oauth2.token_url", "is no URL") from None
    if not is_sound or has_more or parts.scheme not in ("http", "https"):
        raise invalid("oauth2.token_url", "must be https://host/path, without user and fragment")
    if parts.scheme == "http" and not found.allow_insecure_token_url:
        raise invalid(
            "oauth2.token_url",
            "must begin with https://, since secrets travel there (allow_insecure_token_url is for tests)",
        )


def _require_libraries(found: OAuth2Options) -> None:
    if found.grant in _NEEDS_LIBRARY and find_spec("oauthlib") is None:
        raise ConfigurationError(
            "OAuth2 needs oauthlib", stage="config", hint="Install the extra: mailbridge-smtp[oauth2]."
        )
    signs = found.private_key is not None or found.service_account is not None
    if signs and not (find_spec("jwt") and find_spec("cryptography")):
        raise ConfigurationError(
            "Signing for OAuth2 needs PyJWT and cryptography",
            stage="config",
            hint="Install the extra: mailbridge-smtp[oauth2-jwt].",
        )


def require_verification(tls: TLSOptions) -> None:
    """Raise ConfigurationError unless the token server must prove its name: it gets the client's secret.

    Also to be called when a connection is made: a context of the user's own may have changed since.
    """
    context = tls.context
    is_blind = context is not None and (
        context.verify_mode != ssl.CERT_REQUIRED or not context.check_hostname
    )
    if is_blind or not tls.verify:
        option = "context" if is_blind else "verify"
        raise invalid(
            f"oauth2.tls.{option}",
            "must verify the token server, which gets the client's secret; name its authority, or a"
            " certificate that signed itself, by oauth2.tls.ca_file",
        )
    if tls.server_hostname is not None:
        raise invalid("oauth2.tls.server_hostname", "is not used: the name to verify is that in token_url")


def _service_account(value: object) -> Secret | str:
    """The path of a key file as it is; the content of one, a mapping or JSON, as a secret in JSON."""
    if isinstance(value, Mapping):
        content = {str(k): v.reveal() if isinstance(v, Secret) else v for k, v in value.items()}
        try:
            value = Secret(json.dumps(content, sort_keys=True))
        except TypeError:
            raise invalid("oauth2.service_account", "must be what the JSON key file holds") from None
    elif isinstance(value, str) and value.lstrip().startswith("{"):
        value = Secret(value)
    return value if isinstance(value, Secret) else as_text("oauth2.service_account", value)


def _moment(value: object) -> float:
    """Seconds since 1970, of a number (also as text) or of a datetime that has a time zone."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise invalid("oauth2.expires", "must be a datetime with a time zone, or seconds since 1970")
        return value.timestamp()
    try:
        seconds = float(value)  # type: ignore[arg-type]  # anything else is the TypeError below
    except (TypeError, ValueError):
        seconds = float("nan")
    if isinstance(value, bool) or not isfinite(seconds) or seconds < 0:
        raise invalid("oauth2.expires", "must be a datetime with a time zone, or seconds since 1970")
    return seconds


def _pairs(where: str, value: object) -> Pairs:
    if isinstance(value, tuple):
        value = dict(value)
    if not isinstance(value, Mapping):
        raise invalid(where, f"must be a mapping, not {type(value).__name__}")
    pairs = []
    for name, given in value.items():
        label = f"{where}.{shown_name(name)}"
        secret = as_secret(label, given)
        as_text(label, secret.reveal())
        if where.endswith("headers") and (
            not _HEADER_NAME.fullmatch(str(name)) or str(name).lower() in _OWN_HEADERS
        ):
            raise invalid(where, f"can't set the header {shown_name(name)!r}")
        pairs.append((str(name), secret))
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


def _callable(where: str, value: object) -> Callable[..., Any]:
    found = imported(where, value) if isinstance(value, str) else value
    if not callable(found):
        raise invalid(where, "must be a callable, or the dotted path of one")
    return found


def _store(value: object) -> object:
    """A store, the dotted path of one (or of its class), or file:/folder, which `oauth2` opens."""
    if isinstance(value, str):
        if value.startswith("file:"):
            return as_text("oauth2.token_store", value)
        value = _made(value)
    lacking = [name for name in ("load", "save", "lock") if not callable(getattr(value, name, None))]
    if lacking or isinstance(value, type):
        raise invalid("oauth2.token_store", "must be a TokenStore (load, save, lock), or its dotted path")
    return value


@cache
def _made(path: str) -> object:
    """One store for each dotted path: equal options must give equal values."""
    found = imported("oauth2.token_store", path)
    return found() if isinstance(found, type) else found
