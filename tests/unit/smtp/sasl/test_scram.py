"""SCRAM: the RFCs' own exchanges, the server's proof, channel bindings and who says what about them."""

import hashlib
import hmac
from base64 import b64decode, b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailbridge.errors import AuthenticationFailed, ConfigurationError, ProtocolViolation
from mailbridge.secret import Secret
from mailbridge.smtp.sasl import Credentials, mechanism, scram
from mailbridge.smtp.sasl.scram import BINDING_TYPES, MOST_ITERATIONS, Scram
from mailbridge.testing.sasl import EXCHANGES

pytest.importorskip("scramp", reason="the extra scram is not installed")

PENCIL = Credentials("user", Secret("pencil"))
END_POINT = {"tls-server-end-point": b"\x01" * 32}
# RFC 5802 section 5, RFC 7677 section 3: nonce, then what is said in turn.
VECTORS = {
    "SCRAM-SHA-1": (
        "fyko+d2lbbFgONRv9qkxdawL",
        "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
        "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    "SCRAM-SHA-256": (
        "rOprNGfwEbeRWgbNEkqO",
        "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
}
NONCE, FIRST, SERVER_FIRST, FINAL, SERVER_FINAL = VECTORS["SCRAM-SHA-256"]


def proven(name="SCRAM-SHA-256"):
    """An exchange of the vectors that waits for the server's proof."""
    nonce, first, server_first, final, _ = VECTORS[name]
    exchange = Scram(name, PENCIL, nonce=nonce)
    assert exchange.initial() == first.encode()
    assert exchange.step(server_first.encode()) == final.encode()
    return exchange


@pytest.mark.parametrize("name", VECTORS)
def test_the_vectors_of_the_rfcs(name):
    exchange = proven(name)
    assert exchange.step(VECTORS[name][4].encode()) == b""
    exchange.finish("2.7.0 welcome")


def test_the_servers_proof_may_come_with_the_accepting_reply():
    proven().finish("2.7.0 " + b64encode(SERVER_FINAL.encode()).decode())
    proven().finish(b64encode(SERVER_FINAL.encode()).decode())


WRONG_PROOFS = [
    SERVER_FINAL.replace("6rri", "7rri"),
    "v=",
    "v=!",
    "x=6rri",
    "",
    "hello",
    "v=ä",
    VECTORS["SCRAM-SHA-1"][4],
]


@pytest.mark.parametrize("said", WRONG_PROOFS)
def test_a_server_that_does_not_prove_itself_is_not_trusted(said):
    with pytest.raises(AuthenticationFailed, match="did not prove that it knows the password") as caught:
        proven().step(said.encode())
    assert (caught.value.mechanism, caught.value.is_transient) == ("SCRAM-SHA-256", False)
    with pytest.raises(AuthenticationFailed, match="did not prove"):
        proven().finish(b64encode(said.encode()).decode())


@pytest.mark.parametrize("text", ["2.7.0 Authentication successful", "", "2.7.0 ok ="])
def test_acceptance_without_any_proof(text):
    with pytest.raises(AuthenticationFailed, match="did not prove"):
        proven().finish(text)


def test_acceptance_before_anything_was_proven():
    exchange = Scram("SCRAM-SHA-256", PENCIL, nonce=NONCE)
    exchange.initial()
    with pytest.raises(AuthenticationFailed, match="did not prove"):
        exchange.finish("2.7.0 " + b64encode(SERVER_FINAL.encode()).decode())


def test_the_servers_reason_is_kept():
    exchange = proven()
    assert exchange.step(b"e=invalid-proof") == b""
    assert (exchange.refusal, exchange.is_unsuitable) == ("invalid-proof", False)
    with pytest.raises(ProtocolViolation):
        exchange.step(b"e=again")


def test_nothing_is_said_after_a_refusal_at_once():
    exchange = Scram("SCRAM-SHA-256", PENCIL, nonce=NONCE)
    exchange.initial()
    assert exchange.step(b"e=unknown-user") == b""
    assert exchange.refusal == "unknown-user"
    with pytest.raises(ProtocolViolation):
        exchange.step(SERVER_FINAL.encode())


@pytest.mark.parametrize("reason", ["unsupported-channel-binding-type", "channel-binding-not-supported"])
def test_a_binding_that_the_server_cannot_do_is_no_verdict_on_the_credentials(reason):
    exchange = proven()
    exchange.step(f"e={reason}".encode())
    assert exchange.is_unsuitable


@pytest.mark.parametrize(
    "server_first",
    [
        SERVER_FIRST.replace(NONCE, "somebody-elses"),
        SERVER_FIRST.replace("r=" + NONCE + "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "r=" + NONCE),
        SERVER_FIRST.replace("i=4096", "i=1"),
        SERVER_FIRST.replace("i=4096", f"i={MOST_ITERATIONS + 1}"),
        SERVER_FIRST.replace("i=4096", "i=" + "9" * 7000),
        SERVER_FIRST.replace(",i=4096", ""),
        "m=must-understand," + SERVER_FIRST,
        "",
        "\0",
    ],
)
def test_a_first_message_that_is_wrong_gets_no_proof(server_first):
    exchange = Scram("SCRAM-SHA-256", PENCIL, nonce=NONCE)
    exchange.initial()
    with pytest.raises(ProtocolViolation):
        exchange.step(server_first.encode())


@given(st.binary(max_size=120).filter(lambda said: not said.startswith(b"e=")))
def test_whatever_the_server_sends_is_an_error_of_ours(said):
    exchange = Scram("SCRAM-SHA-256", PENCIL, nonce=NONCE)
    exchange.initial()
    with pytest.raises(ProtocolViolation) as caught:
        exchange.step(said)
    assert "pencil" not in str(caught.value)
    assert caught.value.__context__ is None


def test_not_utf_8():
    with pytest.raises(ProtocolViolation, match="UTF-8"):
        Scram("SCRAM-SHA-1", PENCIL).step(b"\xff")


def test_nothing_after_the_end():
    exchange = proven()
    exchange.step(SERVER_FINAL.encode())
    with pytest.raises(ProtocolViolation):
        exchange.step(b"")


def test_each_exchange_has_a_nonce_of_its_own():
    assert len({Scram("SCRAM-SHA-1", PENCIL).initial() for _ in range(20)}) == 20


class TestChannelBinding:
    """RFC 5802 section 6: the flag tells what the client could and what it saw offered."""

    @pytest.mark.parametrize(
        ("name", "bindings", "offered", "header"),
        [
            ("SCRAM-SHA-256", {}, ["SCRAM-SHA-256"], b"n,,"),
            ("SCRAM-SHA-256", {}, ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"], b"n,,"),
            # Could bind, and nothing of the kind is offered: a server that does offer it sees the theft.
            ("SCRAM-SHA-256", END_POINT, ["SCRAM-SHA-256"], b"y,,"),
            # It is offered and not taken: "y" would make the server refuse.
            ("SCRAM-SHA-256", END_POINT, ["SCRAM-SHA-256", "scram-sha-1-plus"], b"n,,"),
            ("SCRAM-SHA-1-PLUS", END_POINT, ["SCRAM-SHA-1-PLUS"], b"p=tls-server-end-point,,"),
        ],
    )
    def test_the_flag(self, name, bindings, offered, header):
        bound = Credentials("user", Secret("pencil"), bindings=bindings)
        assert mechanism(name, bound, offered).initial().startswith(header + b"n=user,r=")

    def test_plus_without_a_channel_to_bind_to(self):
        with pytest.raises(ConfigurationError, match="SCRAM-SHA-256-PLUS needs a channel binding"):
            mechanism("SCRAM-SHA-256-PLUS", PENCIL)

    def test_the_best_of_several(self):
        bindings = {"tls-server-end-point": b"e", "tls-unique": b"u"}
        bound = Credentials("user", Secret("pencil"), bindings=bindings)
        assert mechanism("SCRAM-SHA-1-PLUS", bound).initial().startswith(b"p=tls-unique,,")
        assert BINDING_TYPES[-1] == "tls-server-end-point"

    def test_a_type_that_the_library_does_not_know_is_passed_over(self, monkeypatch):
        bindings = {"tls-exporter": b"x", "tls-server-end-point": b"e"}
        bound = Credentials("user", Secret("pencil"), bindings=bindings)
        mechanism("SCRAM-SHA-1-PLUS", bound)  # whichever it knows: it must not fail
        for known, chosen in (
            ({"tls-exporter", "tls-server-end-point"}, "tls-exporter"),
            ({"tls-server-end-point"}, "tls-server-end-point"),
        ):
            monkeypatch.setattr(scram, "_is_taken", known.__contains__)
            assert scram.binding_for(bound)[0] == chosen
        monkeypatch.setattr(scram, "_is_taken", {"x"}.__contains__)
        assert scram.binding_for(bound) is None

    @pytest.mark.parametrize(("size", "algorithm"), [("1", "sha1"), ("256", "sha256"), ("512", "sha512")])
    @pytest.mark.parametrize("kind", ["tls-unique", "tls-server-end-point"])
    def test_the_proof_covers_the_binding(self, size, algorithm, kind):
        bound = Credentials("user", Secret("pencil"), bindings={kind: b"\x00channel\xff"})
        exchange = Scram(f"SCRAM-SHA-{size}-PLUS", bound, nonce="abc")
        bare = exchange.initial().removeprefix(f"p={kind},,".encode())
        salt, first = b"0123456789abcdef", b"r=abcdef,s=" + b64encode(b"0123456789abcdef") + b",i=4096"
        said, _, proof = exchange.step(first).rpartition(b",p=")
        assert said == b"c=" + b64encode(f"p={kind},,".encode() + b"\x00channel\xff") + b",r=abcdef"

        salted = hashlib.pbkdf2_hmac(algorithm, b"pencil", salt, 4096)
        signed = b",".join((bare, first, said))
        key = hmac.digest(salted, b"Client Key", algorithm)
        signature = hmac.digest(hashlib.new(algorithm, key).digest(), signed, algorithm)
        assert bytes(a ^ b for a, b in zip(b64decode(proof), signature, strict=True)) == key
        server_key = hmac.digest(salted, b"Server Key", algorithm)
        assert exchange.step(b"v=" + b64encode(hmac.digest(server_key, signed, algorithm))) == b""


def converse(name, credentials, users):
    """The exchange against the server's half that knows nothing of the client's."""
    client = mechanism(name, credentials)
    server = EXCHANGES[name](users, client.initial(), b"<1.2@server>")
    try:
        challenge = next(server)
        while True:
            challenge = server.send(client.step(challenge))
    except StopIteration as end:
        return end.value


# Characters that SASLprep leaves as they are.
PLAIN_TEXT = st.text(st.sampled_from("abcXYZ0189 =,.-_äß€"), min_size=1, max_size=20)


@pytest.mark.parametrize("name", ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@settings(max_examples=15, deadline=None)
@given(username=PLAIN_TEXT, password=PLAIN_TEXT)
def test_against_another_implementation(name, username, password):
    credentials = Credentials(username, Secret(password))
    assert converse(name, credentials, {username: password}) == username
    assert converse(name, credentials, {username: password + "x"}) is None


def test_name_and_password_are_prepared():
    """RFC 4013 section 3: soft hyphens vanish, compatibility characters become what they mean."""
    credentials = Credentials("I\u00adX", Secret("\u00aa\u2168"))
    assert converse("SCRAM-SHA-256", credentials, {"IX": "aIX"}) == "IX"


@pytest.mark.parametrize("password", ["\u0627\u0031", "\u0007pw"])
def test_what_cannot_be_prepared_is_refused_without_being_shown(password):
    with pytest.raises(ConfigurationError, match="can't be used here") as caught:
        mechanism("SCRAM-SHA-256", Credentials("user", Secret(password)))
    assert caught.value.__context__ is None
    assert password not in str(caught.value)
