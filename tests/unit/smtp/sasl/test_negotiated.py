"""NTLM with the values of [MS-NLMP], GSSAPI as a scripted exchange.

NTLM is pyspnego's own code, so what it sends is computed again here. Kerberos needs a realm: its context is
a double here, and only the messages of RFC 4752 around it are judged.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass, field

import pytest

from mailbridge.errors import AuthenticationFailed, ConfigurationError, ProtocolViolation
from mailbridge.secret import Secret
from mailbridge.smtp.sasl import Credentials, mechanism

spnego = pytest.importorskip("spnego", reason="the extra gssapi is not installed")

# [MS-NLMP] section 4.2.4: the challenge message as recorded there, its server challenge and the key NTOWFv2
# of the user "User" of "Domain" with the password "Password".
CHALLENGE = bytes.fromhex(
    "4e544c4d53535000020000000c000c003800000033828ae20123456789abcdef0000000000000000240024004400000006007017"
    "0000000f53006500720076006500720002000c0044006f006d00610069006e0001000c0053006500720076006500720000000000"
)
SERVER_CHALLENGE = bytes.fromhex("0123456789abcdef")
NTOWFV2 = bytes.fromhex("0c868a403bfd7a93a3001ef22ef02e3f")
USER = Credentials("Domain\\User", Secret("Password"), host="mail.example.com")


def part(message: bytes, at: int) -> bytes:
    """What the length and the offset at `at` lead to."""
    length, _, offset = struct.unpack_from("<HHI", message, at)
    return message[offset : offset + length]


class TestNTLM:
    def test_the_response_is_the_one_of_the_specification(self):
        exchange = mechanism("NTLM", USER)
        first = exchange.initial()
        assert first[:12] == b"NTLMSSP\0\x01\0\0\0"
        last = exchange.step(CHALLENGE)
        assert last[:12] == b"NTLMSSP\0\x03\0\0\0"
        assert [part(last, at).decode("utf-16-le") for at in (28, 36)] == ["Domain", "User"]
        proof, temp = part(last, 20)[:16], part(last, 20)[16:]
        assert temp[:8] == b"\x01\x01" + bytes(6)
        assert proof == hmac.digest(NTOWFV2, SERVER_CHALLENGE + temp, "md5")
        exchange.finish("welcome")
        with pytest.raises(ProtocolViolation):
            exchange.step(b"")

    def test_the_password_is_not_in_it(self):
        exchange = mechanism("NTLM", USER)
        sent = exchange.initial() + exchange.step(CHALLENGE)
        assert b"Password" not in sent
        assert "Password".encode("utf-16-le") not in sent
        assert "Password" not in repr(exchange)

    def test_the_binding_to_the_certificate_goes_along(self):
        """The MD5 of the bindings as [MS-NLMP] section 2.2.2.1, MsvAvChannelBindings, has it."""
        bound = Credentials(
            "Domain\\User", Secret("Password"), bindings={"tls-server-end-point": b"\x07" * 32}
        )
        exchange = mechanism("NTLM", bound)
        exchange.initial()
        data = b"tls-server-end-point:" + b"\x07" * 32
        expected = hashlib.md5(bytes(16) + struct.pack("<I", len(data)) + data).digest()
        assert b"\x0a\0\x10\0" + expected in part(exchange.step(CHALLENGE), 20)

    @pytest.mark.parametrize("challenge", [b"", b"NTLM supported", CHALLENGE[:30], CHALLENGE[:8]])
    def test_a_challenge_that_is_none(self, challenge):
        exchange = mechanism("NTLM", USER)
        exchange.initial()
        with pytest.raises(AuthenticationFailed, match="NTLM came to no agreement") as caught:
            exchange.step(challenge)
        assert caught.value.__context__ is None

    def test_it_wants_a_password(self):
        with pytest.raises(ConfigurationError, match="nothing to prove"):
            mechanism("NTLM", Credentials("User"))


@dataclass
class Context:
    """A Kerberos context of two tokens; wrapping puts a mark before the data."""

    given: list = field(default_factory=list)
    complete: bool = False

    def step(self, token):
        self.given.append(token)
        self.complete = token is not None
        return None if self.complete else b"AP-REQ"

    def unwrap(self, data):
        if not data.startswith(b"wrapped:"):
            raise spnego.exceptions.BadMICError()
        return type("Result", (), {"data": data.removeprefix(b"wrapped:")})

    def wrap(self, data, encrypt=True):
        assert not encrypt
        return type("Result", (), {"data": b"wrapped:" + data})


class TestGSSAPI:
    @pytest.fixture
    def asked(self, monkeypatch):
        """The arguments that a context was made with."""
        calls = []
        monkeypatch.setattr(spnego, "client", lambda *a, **k: calls.append((a, k)) or Context())
        return calls

    @pytest.mark.parametrize("username", ["", "fred@EXAMPLE.COM"])
    def test_the_exchange_of_rfc_4752(self, asked, username):
        exchange = mechanism("GSSAPI", Credentials(username, host="mail.example.com"))
        assert exchange.initial() == b"AP-REQ"
        assert exchange.step(b"AP-REP") == b""
        assert exchange.step(b"wrapped:\x07\x00\x40\x00") == b"wrapped:\x01\x00\x00\x00" + username.encode()
        exchange.finish("welcome")
        options = {"hostname": "mail.example.com", "service": "smtp", "protocol": "kerberos"}
        assert asked == [((username or None, None), options)]
        with pytest.raises(ProtocolViolation):
            exchange.step(b"")

    @pytest.mark.parametrize("offer", [b"\x06\x00\x40\x00", b"\x00" * 4, b"", b"\x01"])
    def test_a_server_that_insists_on_a_security_layer(self, asked, offer):
        exchange = mechanism("GSSAPI", Credentials("", host="h"))
        exchange.initial()
        exchange.step(b"AP-REP")
        with pytest.raises(AuthenticationFailed, match="security layer"):
            exchange.step(b"wrapped:" + offer)

    def test_an_offer_that_is_not_wrapped_is_refused(self, asked):
        exchange = mechanism("GSSAPI", Credentials("", host="h"))
        exchange.initial()
        exchange.step(b"AP-REP")
        with pytest.raises(AuthenticationFailed, match="GSSAPI came to no agreement"):
            exchange.step(b"\x07\x00\x40\x00")

    def test_acceptance_before_the_server_has_proved_itself(self, asked):
        exchange = mechanism("GSSAPI", Credentials("", host="h"))
        exchange.initial()
        with pytest.raises(AuthenticationFailed, match="before it had proved itself"):
            exchange.finish("welcome")

    def test_what_stands_in_the_way_is_told_when_a_context_cannot_be_had(self, monkeypatch):
        def fail(*args, **options):
            raise ImportError("no Kerberos library")

        monkeypatch.setattr(spnego, "client", fail)
        with pytest.raises(
            ConfigurationError, match="GSSAPI can't be used here: no Kerberos library"
        ) as caught:
            mechanism("GSSAPI", Credentials("u", Secret("hunter2"), host="h"))
        assert caught.value.__context__ is None
