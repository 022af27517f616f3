"""`allow_internal_networks=False` behind proxies: who is asked for, judged before any proxy is contacted.

A proxy connects for us, and what it makes of a name can't be seen from here. So the name is resolved
here, each address is judged, and the proxy gets an address (`guard_names="local"`). With "proxy" it
gets the name, of which only what it spells is judged.
"""

import socket
from dataclasses import replace

from mailbridge.config.proxies import ProxyURL
from mailbridge.deadline import Deadline
from mailbridge.errors import ConnectFailed, ConnectTimeout, NameNotResolved
from mailbridge.net.dialer import Target, interleaved, refusal_as_internal
from mailbridge.net.resolver import Address, ascii_host, literal, resolve

# Each is a connection to the proxy of its own, and somebody else may have written the DNS records.
MOST_ADDRESSES = 4

_HINT = (
    "With allow_internal_networks=False it is resolved here; guard_names='proxy' leaves that to the proxy."
)


def spelled(host: str) -> str:
    """The host as a proxy gets it: an address in its usual spelling, or a name in ASCII."""
    address = literal(host)
    return str(address.ip) if address is not None else ascii_host(host)


def last_stops(target: Target, proxy: ProxyURL, deadline: Deadline) -> list[Target]:
    """What the last proxy is asked for, one after the other: the server as it is named or, with
    `allow_internal_networks=False`, its public addresses.

    Raises `ConnectFailed` where there is none, and for what is internal by its name; `NameNotResolved`
    and `ConnectTimeout`, with stage "dns", where the name is resolved here.
    """
    if target.unix_path is not None:
        raise ConnectFailed(
            "A UNIX socket can't be reached through a proxy", stage="proxy", server=str(target)
        )
    name = spelled(target.host)
    if target.allow_internal_networks:
        return [replace(target, host=name)]
    _judge_spelling(target, name)
    is_ipv4_only = proxy.scheme == "socks4" and proxy.handler is None
    if literal(name) is not None or (target.guard_names == "proxy" and not is_ipv4_only):
        return [replace(target, host=name)]
    family = "ipv4" if is_ipv4_only else target.family
    try:
        found = resolve(name, target.port, family=family, deadline=deadline)
    except (NameNotResolved, ConnectTimeout) as error:
        if not is_ipv4_only:
            error.hint = f"{error.hint} {_HINT}".strip()
        raise
    public = [address for address in found if not address.is_internal]
    if not public:
        raise refusal_as_internal(target, found, stage="proxy")
    return [replace(target, host=str(a.ip)) for a in interleaved(public)[:MOST_ADDRESSES]]


def _judge_spelling(target: Target, name: str) -> None:
    """Refuse an internal address, also as a proxy may read it, and what names this machine."""
    # As the proxy gets it, and reads it as an address: full-width digits are digits by then.
    bare = name.rstrip(".").lower()
    address = literal(bare) or _old_literal(bare)
    is_local_name = bare == "localhost" or bare.endswith(".localhost")  # RFC 6761 section 6.3
    if is_local_name or (address is not None and address.is_internal):
        raise refusal_as_internal(target, (), stage="proxy")


def _old_literal(host: str) -> Address | None:
    """The address that inet_aton makes of "127.1" or "0x7f000001", as proxies may."""
    try:
        return literal(socket.inet_ntoa(socket.inet_aton(host)))
    except (OSError, UnicodeError, ValueError):
        return None
