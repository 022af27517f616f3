"""Keys for DKIM, what DNS would say of them, and the judgement of dkimpy."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

DOMAIN = "example.test"


@dataclass(frozen=True, slots=True)
class Key:
    """A private key in PEM, and the TXT record of its public one."""

    selector: str
    algorithm: str
    pem: str
    record: bytes

    @property
    def options(self) -> dict[str, Any]:
        return {"domain": DOMAIN, "selector": self.selector, "private_key": self.pem}


@cache
def rsa_key(bits: int = 2048, form: str = "PKCS8") -> Key:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    return Key("rsa", "rsa-sha256", pem_of(key, form), record)


@cache
def ed25519_key() -> Key:
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return Key("ed", "ed25519-sha256", pem_of(key), b"v=DKIM1; k=ed25519; p=" + base64.b64encode(public))


def pem_of(key: Any, form: str = "PKCS8", password: bytes | None = None) -> str:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private = getattr(serialization.PrivateFormat, form)
    made: bytes = key.private_bytes(serialization.Encoding.PEM, private, encryption)
    return made.decode()


def judgements(content: bytes, *keys: Key, domain: str = DOMAIN) -> list[bool]:
    """Whether each DKIM signature is valid, the first at the top, by the records of `keys`."""
    dkim = pytest.importorskip("dkim")
    records = {f"{key.selector}._domainkey.{domain}.".encode(): key.record for key in keys}

    def ask_dns(name: bytes, timeout: float = 0) -> bytes | None:
        return records.get(name)

    count = sum(name.lower() == b"dkim-signature" for name, _ in dkim.DKIM(content).headers)
    return [_is_valid(dkim, content, number, ask_dns) for number in range(count)]


def _is_valid(dkim: Any, content: bytes, number: int, ask_dns: Any) -> bool:
    try:
        return bool(dkim.DKIM(content).verify(idx=number, dnsfunc=ask_dns))
    except dkim.ValidationError:
        return False
