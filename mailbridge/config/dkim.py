"""The option `dkim`: by which keys messages are signed, as frozen values that can be part of a key.

Keys are read and tried when the configuration is built, so that a bad one is no surprise of the first
message. Signing is the business of `signing`.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from mailbridge.config.values import as_seconds, as_text, build_group, invalid
from mailbridge.errors import ConfigurationError, InvalidAddress
from mailbridge.message.mailbox import to_ascii_domain
from mailbridge.secret import Secret

__all__ = ["Algorithm", "DKIMOptions", "parse_dkim", "signing_key"]

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]
CANONICALIZATIONS = ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple")

LEAST_RSA_BITS = 1024  # RFC 8301 section 3.2: shorter ones must not be used, and verifiers refuse them
# dkimpy folds the signature field at 72 characters, within a value that is longer: then nobody can read it.
_LONGEST_VALUE = 60
_DOMAIN = re.compile(r"(?:(?:_|[a-z0-9_][a-z0-9_-]*+(?<![-_]))\.)*+[a-z0-9][a-z0-9-]*+(?<!-)", re.IGNORECASE)
_IDENTITY = re.compile(r"[!#-'*+/-9=?A-Z^-~.-]*@([^@]+)")  # RFC 6376 section 3.5, i=; no quoted local part
_FIELD_NAME = re.compile(r"[!-9<-~]+")  # RFC 6376 section 2.9 (hdr-name): no colon, and no semicolon
# RFC 6376 section 5.4.1: fields that are changed or taken out on the way.
_NEVER_SIGNED = frozenset(
    {"return-path", "received", "comments", "keywords", "bcc", "resent-bcc", "dkim-signature"}
)
# RFC 8410 section 7: an Ed25519 key in PKCS #8 is these bytes, and then the 32 of the key itself.
_ED25519_MARK = bytes.fromhex("06032b657004220420")
_SEED = 32  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DKIMOptions:
    """One signature for each message (RFC 6376).

    `private_key`: PEM of an RSA or Ed25519 key, dkimpy's base64 of the latter, or a path object; as a
    mapping also `key_file`, a path. `algorithm` is that of the key. `headers`: the fields to sign,
    instead of those that matter; From always is. `identity`: the i= tag, `@domain` if not given.
    `expires`: seconds after which the signature is no longer valid (x=).

    Every option is described in docs/options.md. Raises ConfigurationError: a key that is none or
    too short, a name that can't be, a missing extra.
    """

    domain: str
    selector: str
    private_key: Any
    algorithm: Algorithm | None = None
    headers: Any = ()
    canonicalization: str = "relaxed/relaxed"
    identity: str | None = None
    expires: float | None = None

    def __post_init__(self) -> None:
        self._set("private_key", _sealed(self.private_key))
        self._set("domain", _domain("dkim.domain", self.domain))
        self._set("selector", _domain("dkim.selector", self.selector))
        self._set("headers", _names(self.headers))
        if self.canonicalization not in CANONICALIZATIONS:
            raise invalid("dkim.canonicalization", f"must be one of {', '.join(CANONICALIZATIONS)}")
        if self.identity is not None:
            self._set("identity", _identity(self.identity, self.domain))
        if self.expires is not None:
            self._set("expires", as_seconds("dkim.expires", self.expires))
        algorithm, _ = signing_key(self.private_key)
        if self.algorithm not in (None, algorithm):
            raise invalid("dkim.algorithm", f"is {self.algorithm!r}, but the key is for {algorithm}")
        self._set("algorithm", algorithm)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def parse_dkim(value: object) -> tuple[DKIMOptions, ...]:
    """One mapping, or several in a list: each message gets a signature of each."""
    given = list(value) if isinstance(value, list | tuple) else [value]
    return tuple(_parsed(each) for each in given)


def _parsed(value: object) -> DKIMOptions:
    if isinstance(value, Mapping):
        value = {
            str(name): _covered(str(name), each) for name, each in value.items() if each not in (None, "")
        }
        if "key_file" in value:
            if "private_key" in value:
                raise invalid("dkim.key_file", "can't stand beside dkim.private_key")
            value["private_key"] = Path(as_text("dkim.key_file", value.pop("key_file")))
        for name in ("domain", "selector", "private_key"):
            if name not in value:
                raise invalid(
                    f"dkim.{name}", "is needed" + (", or key_file" if name == "private_key" else "")
                )
    return build_group(DKIMOptions, "dkim", value)


def _covered(name: str, value: object) -> object:
    return Secret(value) if name == "private_key" and isinstance(value, str) else value


def _sealed(given: object) -> Secret:
    if isinstance(given, os.PathLike):
        try:
            return Secret(Path(given).read_text("ascii"))
        except (OSError, ValueError) as error:
            problem = error.strerror if isinstance(error, OSError) else "it is no text"
        raise invalid("dkim.key_file", f"{str(given)!r} can't be read: {problem}")
    if isinstance(given, Secret | str):
        return given if isinstance(given, Secret) else Secret(given)
    raise invalid("dkim.private_key", f"must be PEM or a path object, not {type(given).__name__}")


def _domain(where: str, value: object) -> str:
    text = as_text(where, value).removesuffix(".")
    try:
        domain = to_ascii_domain(text)
    except InvalidAddress as error:
        raise invalid(where, f"can't be {text!r}: {error.message}") from error
    if not _DOMAIN.fullmatch(domain) or len(domain) > _LONGEST_VALUE:
        raise invalid(where, f"must be a name in DNS of at most {_LONGEST_VALUE} characters, not {text!r}")
    return domain.lower()


def _identity(value: object, domain: str) -> str:
    identity = as_text("dkim.identity", value)
    found = _IDENTITY.fullmatch(identity)
    within = found[1].lower() if found else ""
    if not (within == domain or within.endswith(f".{domain}")) or len(identity) > _LONGEST_VALUE + 5:
        raise invalid("dkim.identity", f"must be an address at {domain} or a domain in it, not {identity!r}")
    return identity


def _names(value: object) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        raise invalid("dkim.headers", f"must be a list of names, not {type(value).__name__}")
    wanted = tuple(dict.fromkeys(as_text("dkim.headers", name).strip().lower() for name in names))
    for name in wanted:
        if not _FIELD_NAME.fullmatch(name) or len(name) > _LONGEST_VALUE or name in _NEVER_SIGNED:
            raise invalid("dkim.headers", f"can't have {name!r}")
    return wanted


def signing_key(private_key: Secret) -> tuple[Algorithm, Secret]:
    """The algorithm of a key, and the key as dkimpy takes it. Raises ConfigurationError."""
    if find_spec("dkim") is None or find_spec("nacl") is None:
        raise ConfigurationError(
            "Signing with DKIM needs dkimpy and PyNaCl",
            stage="config",
            hint="Install the extra: mailbridge-smtp[dkim].",
        )
    algorithm, key, problem = _examined(private_key)
    if algorithm is None:
        raise invalid("dkim.private_key", problem)
    return algorithm, key


# A configuration is built for each mail by some (Django makes a backend each time), and trying a key takes
# milliseconds. The keys are in the configurations anyway.
@lru_cache(maxsize=64)
def _examined(private_key: Secret) -> tuple[Algorithm | None, Secret, str]:
    """Algorithm, key, and what is wrong with it: no error comes from here, whose frames have seen the key."""
    # From the environment, the line ends of PEM often come as two characters.
    text = private_key.reveal().replace("\\n", "\n").replace("\r\n", "\n").strip()
    body = text
    if text.startswith("-----BEGIN "):
        if "ENCRYPTED" in text:
            return None, Secret(""), "is encrypted; give it without a passphrase"
        body = "".join(line for line in text.split("\n") if ":" not in line and not line.startswith("-----"))
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return None, Secret(""), "is neither PEM nor base64"
    mark = data.find(_ED25519_MARK)
    seed = data[mark + len(_ED25519_MARK) :][:_SEED] if mark >= 0 else data
    if len(seed) == _SEED:
        return "ed25519-sha256", Secret(base64.b64encode(seed).decode()), ""
    if not text.startswith("-----BEGIN "):
        return None, Secret(""), "is neither PEM nor the base64 of an Ed25519 key"
    pem = Secret(f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    problem = _problem_of_rsa(pem)
    return (None, Secret(""), problem) if problem else ("rsa-sha256", pem, "")


def _problem_of_rsa(pem: Secret) -> str:
    crypto = import_module("dkim.crypto")
    probe = sha256(b"probe")
    try:
        key = crypto.parse_pem_private_key(pem.reveal().encode())
        bits = key["modulus"].bit_length()
        if bits < LEAST_RSA_BITS:
            return f"is too short: {bits} bits; {LEAST_RSA_BITS} are needed, 2048 are good"
        signature = crypto.RSASSA_PKCS1_v1_5_sign(probe, key)
        is_sound = crypto.RSASSA_PKCS1_v1_5_verify(probe, signature, key)
    except Exception:  # the library's own errors, and those of arithmetic with what is no key
        return "is no private key of RSA or Ed25519"
    return "" if is_sound else "is damaged: what it signs can't be verified"
