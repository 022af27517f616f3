"""What a finished handshake agreed on and what the server's certificate says, as a plain value."""

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_SECONDS_PER_DAY = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFacts:
    """One TLS session. `verified`: the certificate was checked, chain and name.

    An unverified certificate proves nothing and is not read: `subject`, `issuer` and `names` are
    empty then and `not_after` is None.
    """

    version: str
    cipher: str
    verified: bool
    resumed: bool = False
    subject: str = ""
    issuer: str = ""
    not_after: datetime | None = None
    names: tuple[str, ...] = ()

    def days_left(self, now: datetime) -> int | None:
        """Whole days from `now` (with a time zone) until the certificate expires; below 0 afterwards."""
        if self.not_after is None:
            return None
        return int((self.not_after - now).total_seconds() // _SECONDS_PER_DAY)

    def __str__(self) -> str:
        parts = [self.version, self.cipher]
        if not self.verified:
            parts.append("certificate not verified")
        elif self.not_after is not None:
            parts.append(f"certificate for {', '.join(self.names)} until {self.not_after:%Y-%m-%d}")
        if self.resumed:
            parts.append("resumed")
        return ", ".join(parts)


def facts_of(connection: ssl.SSLObject | ssl.SSLSocket) -> TLSFacts:
    """The facts of `connection`, whose handshake is done."""
    # Empty unless the certificate was verified; the ssl module parses it in that case only.
    certificate: dict[str, Any] = connection.getpeercert() or {}
    cipher = connection.cipher()
    context = connection.context
    until = certificate.get("notAfter")
    return TLSFacts(
        version=connection.version() or "",
        cipher=cipher[0] if cipher else "",
        verified=context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname,
        resumed=bool(connection.session_reused),
        subject=_common_name(certificate.get("subject", ())),
        issuer=_common_name(certificate.get("issuer", ())),
        not_after=_time(until) if until else None,
        names=tuple(name for kind, name in certificate.get("subjectAltName", ()) if kind in _NAME_KINDS),
    )


_NAME_KINDS = frozenset({"DNS", "IP Address"})
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _time(text: str) -> datetime:
    """OpenSSL's "Jan  5 09:34:43 2018 GMT".

    Not by `ssl.cert_time_to_seconds`: that takes the lock of `time.strptime`, which a forked child may
    inherit held and would then wait for at every handshake.
    """
    month, day, clock, year, _ = text.split()
    hour, minute, second = map(int, clock.split(":"))
    return datetime(int(year), _MONTHS.index(month) + 1, int(day), hour, minute, second, tzinfo=UTC)


def _common_name(name: Iterable[Iterable[tuple[str, str]]]) -> str:
    """The commonName of an X.501 name, or its organisation, or nothing."""
    fields = dict(pair for part in name for pair in part)
    return fields.get("commonName") or fields.get("organizationName") or ""
