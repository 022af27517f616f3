"""The value of the option `proxy`: which proxies, in which order, and how to speak to each.

Parsing and checking only. Who speaks to them is `net`; custom kinds are registered here, by the
scheme of their URL.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from mailbridge.config.groups import TLSOptions
from mailbridge.config.values import as_text, build_group, imported, invalid, unknown_option
from mailbridge.errors import ConfigurationError
from mailbridge.secret import Secret

# RFC 3986 has no word on them; these are the ports that everybody means.
DEFAULT_PORTS: Mapping[str, int] = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
}
# One kind, three spellings: the proxy resolves the target's name (curl would do so for socks5h only).
_SAME_AS = {"socks": "socks5", "socks5h": "socks5"}

_NOT_IN_HOSTS = frozenset("/@?#[]\\<>\"'\x7f")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")  # RFC 3986 section 3.1

#: Opens a way to (host, port) through the proxy: a connected socket, or (socket, secured).
ProxyHandler = Callable[..., Any]

_registered: dict[str, ProxyHandler] = {}


def register_proxy(scheme: str, handler: ProxyHandler) -> None:
    """Let `handler` speak to the proxies whose URL begins with `scheme`, which may be a built-in one.

    `handler(proxy, target, deadline)` gets the `ProxyURL`, the (host, port) to reach, and the
    `Deadline` that it must meet (`deadline.remaining` is in seconds, None without limit). It gives a
    connected `socket.socket`, or a pair of that and whether its bytes are encrypted already, in
    which case no STARTTLS follows. Counts for configurations built from now on.
    """
    name = scheme.lower()
    if not _SCHEME.fullmatch(name):
        raise invalid("proxy", f"{scheme!r} can't be the scheme of a URL")
    if not callable(handler):
        raise invalid("proxy", f"the handler of {scheme!r} must be callable")
    _registered[name] = handler


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyURL:
    """One proxy. `str()` and `repr()` show no credentials.

    `tls` is for the connection to an https proxy alone; it is never mixed with the mail server's.
    """

    scheme: str
    host: str
    port: int
    username: str | None = field(default=None, repr=False)  # some proxies take a token here
    password: Secret | None = None
    tls: TLSOptions = field(default_factory=TLSOptions)
    handler: ProxyHandler | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_proxies(value: object, *, host: str, port: int | None = None) -> tuple[ProxyURL, ...]:
    """The proxies that `value` names, the nearest first; `host` and `port` are the server's, for "env".

    A URL, a mapping with `url` and, beside it, `tls` (for https) or `handler` (callable or dotted
    path), a list of these (a chain), or "env" for ALL_PROXY, HTTPS_PROXY and NO_PROXY.
    """
    if value == "env":
        return _from_environment(host, port)
    several = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]
    proxies = tuple(_parse(each) for each in several)
    for proxy in proxies[1:]:
        if proxy.handler is not None:
            raise invalid(
                "proxy", f"{proxy} has a handler of its own, so it can only be the first of a chain"
            )
    return proxies


def _parse(value: object) -> ProxyURL:
    if isinstance(value, ProxyURL):
        return _checked(value)
    extra: dict[str, Any] = {}
    if isinstance(value, Mapping):
        extra = {name: given for name, given in value.items() if name != "url" and given is not None}
        for name in extra:
            if name not in ("tls", "handler"):
                raise unknown_option(str(name), ["url", "tls", "handler"], "proxy.")
        value = value.get("url")
    if isinstance(value, Secret):
        value = value.reveal()
    parts = _split(value)
    proxy = _checked(
        ProxyURL(
            scheme=parts.scheme,
            host=parts.hostname or "",
            port=parts.port or DEFAULT_PORTS.get(_SAME_AS.get(parts.scheme, parts.scheme), 0),
            username=_decoded(parts.username),
            password=None if parts.password is None else Secret(_decoded(parts.password) or ""),
            tls=build_group(TLSOptions, "proxy.tls", extra.get("tls", {})),
            handler=_handler(extra["handler"]) if "handler" in extra else None,
        )
    )
    if "tls" in extra and (proxy.handler is not None or proxy.scheme != "https"):
        raise invalid("proxy.tls", "is for the connection to an https:// proxy only")
    return proxy


def _checked(proxy: ProxyURL) -> ProxyURL:
    """The proxy with its registered handler, or in the one spelling of its built-in scheme."""
    same = _SAME_AS.get(proxy.scheme, proxy.scheme)
    handler = proxy.handler or _registered.get(proxy.scheme) or _registered.get(same)
    scheme = proxy.scheme if proxy.handler is not None or proxy.scheme in _registered else same
    if handler is None and scheme not in DEFAULT_PORTS:
        known = ", ".join(sorted({*DEFAULT_PORTS, *_SAME_AS, *_registered}))
        raise invalid("proxy", f"has the scheme {scheme!r}; known are {known}, and what register_proxy adds")
    if not proxy.port:
        raise invalid("proxy", f"names no port, and {scheme!r} has no default one")
    if proxy.port not in range(1, 65536):
        raise invalid("proxy", f"has the port {proxy.port}, which does not lie between 1 and 65535")
    if not proxy.host or any(c <= " " or c in _NOT_IN_HOSTS for c in proxy.host.partition("%")[0]):
        raise _bad("needs a host name or an IP address")
    if "%" in proxy.host and ":" not in proxy.host:  # only a zone (RFC 4007 section 11) begins so
        raise _bad("has a percent sign in the host")
    proxy = replace(proxy, scheme=scheme, handler=handler)
    if handler is None:
        _check_credentials(proxy)
        _require_library(scheme)
    return proxy


def _require_library(scheme: str) -> None:
    if scheme.startswith("socks") and find_spec("socks") is None:
        raise ConfigurationError(
            "SOCKS proxies need PySocks", stage="config", hint="Install the extra: mailbridge-smtp[socks]."
        )


def _bad(problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"The proxy URL {problem}",
        stage="config",
        hint="Write it as scheme://user:password@host:port; / @ : # in user and password percent-encoded.",
    )


def _split(url: object) -> SplitResult:
    if not isinstance(url, str) or any(c <= " " or c == "\x7f" for c in url):
        raise _bad("must be a string without spaces and control characters")
    # The errors of urllib quote the URL, so they must not become the context of ours.
    parts = None
    try:
        parts = urlsplit(url)
        is_sound = bool(parts.scheme and parts.hostname) and parts.port != 0
    except ValueError:
        is_sound = False
    if parts is None or not is_sound:
        raise _bad("needs a scheme, a host and a sound port")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "#" in url or "?" in url:
        raise _bad("has something after host and port")
    return parts


def _decoded(text: str | None) -> str | None:
    if text is None:
        return None
    decoded = unquote(text)
    if "\ufffd" in decoded:
        raise _bad("has percent-encoded bytes that are not UTF-8")
    return decoded


# RFC 1929 has one byte for each length; PySocks writes lengths above 127 wrongly.
_LONGEST_SOCKS_CREDENTIAL = 127


def _check_credentials(proxy: ProxyURL) -> None:
    """What cannot go out raw is refused before a byte is sent."""
    user, password = proxy.username, proxy.password.reveal() if proxy.password is not None else None
    if password is not None and not user:
        raise _bad("has a password but no user")
    for text in (user, password):
        if text is not None and any(ord(c) < 32 or ord(c) == 127 for c in text):
            raise _bad("has control characters in user or password")
    if proxy.scheme in ("http", "https"):
        if user is not None and ":" in user:
            raise _bad("has a colon in the user, which Basic credentials can't carry (RFC 7617 section 2)")
    elif proxy.scheme == "socks5":
        if user and not password:
            raise _bad("has a user but no password, which SOCKS5 can't carry (RFC 1929)")
        if any(len((text or "").encode()) > _LONGEST_SOCKS_CREDENTIAL for text in (user, password)):
            raise _bad(f"has a user or password of more than {_LONGEST_SOCKS_CREDENTIAL} bytes")
    elif password is not None:
        raise _bad("has a password, which SOCKS4 can't carry; a user alone it can")


def _handler(value: object) -> ProxyHandler:
    """A callable, or the one that a dotted path names."""
    if callable(value):
        return value
    path = as_text("proxy.handler", value)
    found = imported("proxy.handler", path)
    if not callable(found):
        raise invalid("proxy.handler", f"names {path!r}, which is not callable")
    return found


def _from_environment(host: str, port: int | None) -> tuple[ProxyURL, ...]:
    """ALL_PROXY, else HTTPS_PROXY, lower case first as curl has it; none if NO_PROXY names the host."""

    def variable(name: str) -> str:
        return os.environ.get(name.lower()) or os.environ.get(name) or ""

    name = "ALL_PROXY" if variable("ALL_PROXY") else "HTTPS_PROXY"
    if not variable(name) or _is_exempt(host, port, variable("NO_PROXY")):
        return ()
    try:
        return (_parse(variable(name)),)
    except ConfigurationError as error:
        error.reword(f"{error.message}; it comes from {name} in the environment")
        raise


# One entry of NO_PROXY with a port; an address of IPv6 has one only behind brackets.
_WITH_PORT = re.compile(r"(\[[^]]*\]|[^:]*):([0-9]+)")


def _is_exempt(host: str, port: int | None, patterns: str) -> bool:
    """Whether a NO_PROXY list names `host`: by name, suffix, address, or network (CIDR).

    Commas or spaces are between entries; one with a port is for that port alone. A UNIX socket, which
    no proxy can reach, always is.
    """
    if host.startswith("unix:"):
        return True
    name = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    for entry in re.split(r"[\s,]+", patterns.lower()):
        with_port = _WITH_PORT.fullmatch(entry)
        if with_port is not None and int(with_port[2]) != port:
            continue
        pattern = (entry if with_port is None else with_port[1]).rstrip(".")
        if pattern == "*" or (pattern and pattern.strip("[]") == name):
            return True
        if address is None:
            suffix = pattern.lstrip("*").lstrip(".")
            if suffix and name.endswith("." + suffix):
                return True
        elif _is_in(address, pattern.strip("[]")):
            return True
    return False


def _is_in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:  # neither address nor network: names nobody
        return False
