"""The server's half of the mechanisms, as generators that yield challenges and are sent responses.

Written against the RFCs and not against mailbridge's own mechanisms, which it judges: SCRAM is computed here
with `hashlib` alone. It sends nothing itself. SCRAM is without channel binding, as on a server in the clear.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Generator, Mapping

__all__ = ["EXCHANGES", "Exchange"]

# Yields a challenge (raw bytes), is sent the response (raw bytes), returns the user's name or None for "no".
Exchange = Generator[bytes, bytes, str | None]
Users = Mapping[str, str]

_ITERATIONS = 4096  # RFC 7677 section 4: at least
# RFC 7628 section 3.2.2, with the words of Google's servers.
_TOKEN_ERROR = b'{"status":"401","schemes":"bearer","scope":"https://mail.example.com/"}'


def _checked(users: Users, name: bytes, password: bytes) -> str | None:
    user = name.decode("utf-8", "surrogateescape")
    return user if user in users and users[user].encode("utf-8") == password else None


def _plain(users: Users, initial: bytes | None, challenge: bytes) -> Exchange:
    """RFC 4616: [authorization identity] NUL user NUL password. Authorization as somebody else is refused."""
    parts = (initial if initial is not None else (yield b"")).split(b"\0")
    if len(parts) != 3 or parts[0] not in (b"", parts[1]):
        return None
    return _checked(users, parts[1], parts[2])


def _login(users: Users, initial: bytes | None, challenge: bytes) -> Exchange:
    """draft-murchison-sasl-login: two questions; the user's name may come as the initial response."""
    name = initial if initial is not None else (yield b"Username:")
    return _checked(users, name, (yield b"Password:"))


def _cram_md5(users: Users, initial: bytes | None, challenge: bytes) -> Exchange:
    """RFC 2195: user, space, HMAC-MD5 of the challenge in hexadecimal. There is no initial response."""
    if initial is not None:
        return None
    name, _, digest = (yield challenge).rpartition(b" ")
    user = name.decode("utf-8", "surrogateescape")
    if user not in users:
        return None
    expected = hmac.new(users[user].encode("utf-8"), challenge, hashlib.md5).hexdigest()
    return user if digest == expected.encode("ascii") else None


def _scram(algorithm: str) -> Callable[[Users, bytes | None, bytes], Exchange]:
    """RFC 5802 section 5 with the hash `algorithm`. Names and passwords must need no SASLprep."""

    def exchange(users: Users, initial: bytes | None, challenge: bytes) -> Exchange:
        header, _, bare = (initial if initial is not None else (yield b"")).partition(b",,")
        asked = _attributes(bare)
        name = asked.get(b"n", b"").replace(b"=2C", b",").replace(b"=3D", b"=").decode("utf-8", "replace")
        if header not in (b"n", b"y") or not asked.get(b"r"):
            return None
        fresh = hashlib.sha256(challenge).digest()
        nonce = asked[b"r"] + fresh[:9].hex().encode()
        first = b"r=%s,s=%s,i=%d" % (nonce, b64encode(fresh[16:]), _ITERATIONS)
        final = yield first
        said, _, proof = final.rpartition(b",p=")
        if _attributes(said) != {b"c": b64encode(header + b",,"), b"r": nonce} or name not in users:
            return None
        salted = hashlib.pbkdf2_hmac(algorithm, users[name].encode(), fresh[16:], _ITERATIONS)
        signed = b",".join((bare, first, said))
        key = hmac.digest(salted, b"Client Key", algorithm)
        signature = hmac.digest(hashlib.new(algorithm, key).digest(), signed, algorithm)
        if _decoded(proof) != bytes(a ^ b for a, b in zip(key, signature, strict=True)):
            return None
        server_key = hmac.digest(salted, b"Server Key", algorithm)
        done = yield b"v=" + b64encode(hmac.digest(server_key, signed, algorithm))
        return name if done == b"" else None

    return exchange


def _attributes(message: bytes) -> dict[bytes, bytes]:
    return {part[:1]: part[2:] for part in message.split(b",") if part[1:2] == b"="}


def _decoded(text: bytes) -> bytes | None:
    try:
        return b64decode(text, validate=True)
    except NotBase64:
        return None


def _xoauth2(users: Users, initial: bytes | None, challenge: bytes) -> Exchange:
    """Google's "XOAUTH2 Protocol"; the user's password is the token. An error wants an empty answer."""
    fields = (initial if initial is not None else (yield b"")).split(b"\1")
    if len(fields) == 4 and fields[0].startswith(b"user=") and fields[1].startswith(b"auth=Bearer "):
        user = _checked(users, fields[0][len(b"user=") :], fields[1][len(b"auth=Bearer ") :])
        if user is not None and fields[2:] == [b"", b""]:
            return user
    yield _TOKEN_ERROR
    return None


def _oauthbearer(users: Users, initial: bytes | None, challenge: bytes) -> Exchange:
    """RFC 7628 section 3.1; the user's password is the token. An error wants a dummy answer."""
    header, *fields = (initial if initial is not None else (yield b"")).split(b"\1")
    given = dict(field.partition(b"=")[::2] for field in fields[:-2])
    if header.startswith(b"n,a=") and header.endswith(b",") and fields[-2:] == [b"", b""]:
        name = header[len(b"n,a=") : -1].replace(b"=2C", b",").replace(b"=3D", b"=")
        user = _checked(users, name, given.get(b"auth", b"").removeprefix(b"Bearer "))
        if user is not None and given.get(b"auth", b"").startswith(b"Bearer "):
            return user
    yield _TOKEN_ERROR
    return None


EXCHANGES: dict[str, Callable[[Users, bytes | None, bytes], Exchange]] = {
    "SCRAM-SHA-512": _scram("sha512"),
    "SCRAM-SHA-256": _scram("sha256"),
    "SCRAM-SHA-1": _scram("sha1"),
    "CRAM-MD5": _cram_md5,
    "OAUTHBEARER": _oauthbearer,
    "XOAUTH2": _xoauth2,
    "PLAIN": _plain,
    "LOGIN": _login,
}
