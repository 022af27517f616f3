"""What a server knows of one connection, and of one mail, as its hooks are told.

Values alone: nothing here reads a socket. What comes from the client (names, parameters) is its
claim; what a PROXY header says is as good as the peer that sent it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mailbridge.proxy_protocol.tlvs import ProxySsl, Tlvs
from mailbridge.proxy_protocol.value import ProxyHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSession:
    """The TLS that is spoken with this server, such as "TLSv1.3" and "TLS_AES_256_GCM_SHA384"."""

    version: str
    cipher: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyTlvs:
    """The vectors of a PROXY header of version 2; None, or empty, where it has none.

    `ssl` tells of the TLS between the client and the proxy, `authority` is the host name that the
    client asked for, `unique_id` the proxy's name for the connection (at most 128 bytes). `all` has
    every vector as (type, value), in the order of the wire.
    """

    ssl: ProxySsl | None = None
    authority: str | None = None
    unique_id: bytes | None = None
    alpn: bytes | None = None
    netns: str | None = None
    all: Tlvs = ()

    @classmethod
    def of(cls, header: ProxyHeader) -> "ProxyTlvs":
        """What `header` carries."""
        return cls(
            ssl=header.ssl,
            authority=header.authority,
            unique_id=header.unique_id,
            alpn=header.alpn,
            netns=header.netns,
            all=header.tlvs,
        )


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
class Session:
    """One connection. The same object goes to all hooks; the server alone writes to it.

    `id` names the connection in every log record. `remote_address` and `remote_port` are the client's:
    what a believed PROXY header says, else what the socket says; IPv4 in the clothes of IPv6
    (`::ffff:192.0.2.1`) is IPv4. A client that a proxy has taken from a UNIX socket is `unix:PATH` with
    port 0, odd characters escaped. `proxy_address` is the proxy's own address, None without a header;
    `local_address` and `local_port` are the server's own end of the socket.

    `client_hostname` is the name in EHLO or HELO, None before it: an unchecked claim. `tls` is None
    in clear text, `user` until a login has succeeded. `transactions` counts the mails that were taken.
    """

    id: str
    remote_address: str
    remote_port: int
    local_address: str
    local_port: int
    proxy_address: str | None = None
    proxy_tlvs: ProxyTlvs = field(default_factory=ProxyTlvs)
    client_hostname: str | None = None
    tls: TLSSession | None = None
    user: str | None = None
    transactions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedEnvelope:
    """Sender and recipients of one mail (RFC 5321 section 2.3.1).

    `sender` is "" for the null reverse-path of bounces. `recipients` keep their order; one that was
    given twice is there twice. `parameters` are those of MAIL, names in upper case: `{"SIZE": "1000",
    "BODY": "8BITMIME", "SMTPUTF8": ""}`.
    """

    sender: str
    recipients: tuple[str, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
