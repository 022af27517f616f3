"""Where a server is, and how it is reached: host, port, security, addresses, proxies.

Parses these options of `SMTPConfig`; nothing here resolves a name or connects.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from mailbridge.config.proxies import parse_proxies
from mailbridge.config.values import as_choice, as_count, as_text, invalid, shown

# RFC 8314 section 3.3 names 465 for implicit TLS, RFC 6409 587 for submission.
DEFAULT_PORTS: Mapping[str, int] = {"tls": 465, "starttls": 587, "opportunistic": 587, "none": 25}
LMTP_PORT = 24  # "any private mail system": what servers of mailboxes listen on
_SMTP_PORT = 25

# RFC 5321 section 4.1.2: Domain or address-literal, the only things EHLO may name.
# Possessive, so that a name that does not fit is refused in linear time.
_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_-]*+(?<!-)"
_EHLO_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*+\.?|\[[A-Za-z0-9:.\-]+\]")


def parse_host(value: object) -> str:
    host = as_text("host", value)
    if host.startswith("unix:"):
        if not host.startswith("unix:/"):
            raise invalid("host", "must name a UNIX socket as unix:/absolute/path")
        return host
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not host or any(c in host for c in " /@?#[]\\<>\"'"):
        raise invalid("host", f"must be a host name or an IP address, not {shown(value)}")
    if ":" in host:
        _address("host", host.partition("%")[0])
    return host


def parse_way(host: str, port: int, proxy: object, proxy_protocol: object) -> dict[str, Any]:
    """How the server is reached: through which proxies, and with which PROXY header first."""
    proxies = () if proxy is None else parse_proxies(proxy, host=host, port=port)
    if proxies and host.startswith("unix:"):
        raise invalid("proxy", "can't lead to a UNIX socket")
    if proxy_protocol is not None and str(proxy_protocol) not in ("1", "2"):
        raise invalid("proxy_protocol", f"must be 1 or 2, not {shown(proxy_protocol)}")
    return {"proxy": proxies, "proxy_protocol": None if proxy_protocol is None else int(str(proxy_protocol))}


def _address(name: str, value: str) -> int:
    """The IP version of an address literal."""
    try:
        return ip_address(value).version
    except ValueError:
        pass  # it quotes the value, and is not to hang on what is raised
    raise invalid(name, "must be an IP address")


def parse_source_address(value: object, family: str) -> str | None:
    if value is None:
        return None
    address = as_text("source_address", value).strip("[]")
    if family not in ("any", f"ipv{_address('source_address', address)}"):
        raise invalid("source_address", f"{address} is no {family} address")
    return address


def parse_local_hostname(value: object) -> str | None:
    if value is None:
        return None
    name = as_text("local_hostname", value)
    if len(name) > 255 or not _EHLO_NAME.fullmatch(name):
        raise invalid("local_hostname", "must be a host name or an address literal such as [192.0.2.1]")
    return name


def parse_endpoint(host: str, port: object, security: object, protocol: object) -> dict[str, Any]:
    protocol = as_choice("protocol", protocol, ("smtp", "lmtp"))
    if port is not None:
        port = as_count("port", port)
        if port > 65535:
            raise invalid("port", f"must lie between 1 and 65535, not {port}")
        if protocol == "lmtp" and port == _SMTP_PORT:
            raise invalid("port", "can't be 25 with protocol='lmtp' (RFC 2033 section 5); usual is 24")
    if security is None:
        # Nobody listens on a UNIX socket but this host, and no certificate names a path.
        security = "tls" if port == 465 else "none" if host.startswith("unix:") else "starttls"
    security = as_choice("security", security, tuple(DEFAULT_PORTS))
    if port is None:
        port = LMTP_PORT if protocol == "lmtp" else DEFAULT_PORTS[security]
    return {"protocol": protocol, "security": security, "port": port}
