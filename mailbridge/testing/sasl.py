"""The server's half of AUTH PLAIN, LOGIN and CRAM-MD5, as generators that yield challenges and are sent
responses.

Written against the RFCs and not against mailbridge's own mechanisms, which it judges. It sends nothing
itself.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Generator, Mapping

__all__ = ["EXCHANGES", "Exchange"]

# Yields a challenge (raw bytes), is sent the response (raw bytes), returns the user's name or None for "no".
Exchange = Generator[bytes, bytes, str | None]
Users = Mapping[str, str]


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


EXCHANGES: dict[str, Callable[[Users, bytes | None, bytes], Exchange]] = {
    "PLAIN": _plain,
    "LOGIN": _login,
    "CRAM-MD5": _cram_md5,
}
