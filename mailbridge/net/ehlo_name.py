"""The name this machine gives itself in EHLO (RFC 5321 section 4.1.4).

No DNS: `socket.getfqdn()` may wait for a resolver, and what it answers is the resolver's text,
not ours (CVE-2026-28753). The host name counts if it is a full one; else the address literal of
the session's own end.
"""

import re
import socket
from ipaddress import IPv6Address, ip_address

_FULL_NAME = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]{0,62}")


def ehlo_name(sockname: str) -> str:
    """A host name with a domain, else `[192.0.2.1]` or `[IPv6:2001:db8::1]` from address:port."""
    name = socket.gethostname()
    if len(name) <= 255 and _FULL_NAME.fullmatch(name) and not name.endswith((".local", ".localdomain")):
        return name
    try:
        address = ip_address(sockname.rpartition(":")[0].strip("[]").partition("%")[0])
    except ValueError:  # a UNIX socket has none
        return "[127.0.0.1]"
    return f"[IPv6:{address}]" if isinstance(address, IPv6Address) else f"[{address}]"
