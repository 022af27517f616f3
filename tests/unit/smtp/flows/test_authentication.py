"""AUTH as a dialogue: each mechanism, refusals, fall-through, challenges that make no sense."""

from base64 import b64encode
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec

import pytest

from mailbridge.errors import AuthenticationFailed, ConnectionLost, MailbridgeError, ProtocolViolation
from mailbridge.secret import Secret
from mailbridge.smtp.flows.authentication import authentication
from mailbridge.smtp.sasl import Credentials, Mechanism, mechanism
from mailbridge.smtp.sasl.scram import Scram
from tests.unit.smtp.flows.dialogue import Dialogue

PLAIN = b64encode(b"\0tim\0tanstaaftanstaaf").decode()
USER, PASSWORD = b64encode(b"tim").decode(), b64encode(b"tanstaaftanstaaf").decode()


def authenticate(said: str | Dialogue, makers: Sequence[Callable[[], Mechanism]]) -> str:
    dialogue = Dialogue(said) if isinstance(said, str) else said
    accepted: str = dialogue.run(lambda wire: authentication(wire, makers))
    return accepted


def log_in(said: str | Dialogue, *names: str) -> str:
    credentials = Credentials("tim", Secret("tanstaaftanstaaf"))
    makers = [lambda name=name: mechanism(name, credentials) for name in names]
    return authenticate(said, makers)


def test_plain_in_one_step() -> None:
    assert log_in(f"C: AUTH PLAIN {PLAIN}\nS: 235 2.7.0 welcome", "PLAIN") == "PLAIN"


def test_login_in_three() -> None:
    text = f"""
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: {USER}
        S: 334 UGFzc3dvcmQ6
        C: {PASSWORD}
        S: 235 welcome
    """
    assert log_in(text, "LOGIN") == "LOGIN"


def test_cram_md5_with_the_vector_of_rfc_2195() -> None:
    text = """
        C: AUTH CRAM-MD5
        S: 334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+
        C: dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw
        S: 235 welcome
    """
    assert log_in(text, "CRAM-MD5") == "CRAM-MD5"


@pytest.mark.parametrize(
    "refusal", ["535 5.7.8 wrong", "530 5.7.0 no", "454 4.7.0 later", "503 5.5.1 twice", "250 ok"]
)
def test_wrong_credentials_are_not_tried_under_another_mechanism(refusal: str) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        log_in(f"C: AUTH PLAIN {PLAIN}\nS: {refusal}", "PLAIN", "LOGIN")
    assert (caught.value.mechanism, str(caught.value.reply)) == ("PLAIN", refusal)


def test_a_later_refusal_is_transient_and_a_wrong_password_is_not() -> None:
    for refusal, is_transient in (("454 4.7.0 later", True), ("535 5.7.8 wrong", False)):
        with pytest.raises(AuthenticationFailed) as caught:
            log_in(f"C: AUTH PLAIN {PLAIN}\nS: {refusal}", "PLAIN")
        assert caught.value.is_transient is is_transient


@pytest.mark.parametrize("refusal", ["504 5.5.4 unknown", "534 5.7.9 too weak"])
def test_the_next_mechanism_where_this_one_is_not_taken(refusal: str) -> None:
    text = f"""
        C: AUTH CRAM-MD5
        S: {refusal}
        C: AUTH PLAIN {PLAIN}
        S: 235 welcome
    """
    assert log_in(text, "CRAM-MD5", "PLAIN") == "PLAIN"


@pytest.mark.parametrize("end", ["S: 421 bye", "S: <eof>"])
def test_a_server_that_leaves(end: str) -> None:
    with pytest.raises(ConnectionLost):
        log_in(f"C: AUTH PLAIN {PLAIN}\n{end}", "PLAIN")


def test_a_challenge_that_is_no_base64_ends_the_exchange_in_step() -> None:
    dialogue = Dialogue("C: AUTH LOGIN\nS: 334 Username:\nC: *\nS: 501 5.7.0 cancelled")
    with pytest.raises(ProtocolViolation):
        log_in(dialogue, "LOGIN")
    assert dialogue.wire.is_quiet


def test_a_challenge_too_many() -> None:
    with pytest.raises(ProtocolViolation):
        log_in(f"C: AUTH PLAIN {PLAIN}\nS: 334 bW9yZQ==\nC: *\nS: 501 cancelled", "PLAIN")


@pytest.mark.parametrize(
    "echo", [f"535 5.7.8 unknown: AUTH PLAIN {PLAIN}", "535 5.7.8 wrong password tanstaaftanstaaf"]
)
def test_what_the_server_quotes_of_the_secret_is_masked(echo: str) -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        log_in(f"C: AUTH PLAIN {PLAIN}\nS: {echo}", "PLAIN")
    assert "tanstaaf" not in str(caught.value)
    assert PLAIN not in str(caught.value)


def test_no_mechanism_at_all() -> None:
    with pytest.raises(MailbridgeError):
        log_in("")


SCRAM = ("SCRAM-SHA-256", Credentials("user", Secret("pencil")), "rOprNGfwEbeRWgbNEkqO")
# RFC 7677 section 3, in base64.
CLIENT_FIRST = b64encode(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").decode()
SERVER_FIRST = b64encode(
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
).decode()
CLIENT_FINAL = b64encode(
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
).decode()
PROOF = b64encode(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").decode()
FORGED = b64encode(b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").decode()
UNTIL_PROOF = f"""
    C: AUTH SCRAM-SHA-256 {CLIENT_FIRST}
    S: 334 {SERVER_FIRST}
    C: {CLIENT_FINAL}
""".strip()


def scram(said: str | Dialogue, *more: str) -> str:
    name, credentials, nonce = SCRAM
    makers: list[Callable[[], Mechanism]] = [lambda: Scram(name, credentials, nonce=nonce)]
    makers += [partial(mechanism, other, credentials) for other in more]
    return authenticate(said, makers)


@pytest.mark.skipif(find_spec("scramp") is None, reason="the extra scram is not installed")
class TestScram:
    def test_the_exchange_of_rfc_7677(self) -> None:
        """The server's proof is a challenge, which is answered by an empty line (RFC 4954 section 4)."""
        assert scram(f"{UNTIL_PROOF}\nS: 334 {PROOF}\nC: \nS: 235 welcome") == "SCRAM-SHA-256"

    def test_the_proof_beside_the_acceptance(self) -> None:
        assert scram(f"{UNTIL_PROOF}\nS: 235 2.7.0 {PROOF}") == "SCRAM-SHA-256"

    def test_a_forged_proof_ends_the_exchange_before_it_succeeds(self) -> None:
        dialogue = Dialogue(f"{UNTIL_PROOF}\nS: 334 {FORGED}\nC: *\nS: 501 cancelled")
        with pytest.raises(AuthenticationFailed, match="did not prove that it knows the password"):
            scram(dialogue, "PLAIN")
        assert dialogue.is_usable

    @pytest.mark.parametrize("acceptance", ["235 2.7.0 welcome", f"235 2.7.0 {FORGED}"])
    def test_acceptance_without_a_proof_is_refused(self, acceptance: str) -> None:
        with pytest.raises(AuthenticationFailed, match="did not prove"):
            scram(f"{UNTIL_PROOF}\nS: {acceptance}", "PLAIN")
        with pytest.raises(AuthenticationFailed, match="did not prove"):
            scram(f"C: AUTH SCRAM-SHA-256 {CLIENT_FIRST}\nS: {acceptance}", "PLAIN")

    def test_a_wrong_password_is_not_tried_under_another_mechanism(self) -> None:
        with pytest.raises(AuthenticationFailed) as caught:
            scram(f"{UNTIL_PROOF}\nS: 535 5.7.8 wrong", "PLAIN")
        assert (caught.value.smtp_code, caught.value.challenge) == (535, "")

    def test_the_reason_in_a_challenge_is_told(self) -> None:
        why = b64encode(b"e=invalid-proof").decode()
        with pytest.raises(AuthenticationFailed) as caught:
            scram(f"{UNTIL_PROOF}\nS: 334 {why}\nC: \nS: 535 5.7.8 wrong", "PLAIN")
        assert caught.value.challenge == "invalid-proof"

    def test_a_binding_that_the_server_cannot_do_leads_to_the_next_mechanism(self) -> None:
        why = b64encode(b"e=unsupported-channel-binding-type").decode()
        plain = b64encode(b"\0user\0pencil").decode()
        text = f"{UNTIL_PROOF}\nS: 334 {why}\nC: \nS: 535 5.7.8 no\nC: AUTH PLAIN {plain}\nS: 235 welcome"
        assert scram(text, "PLAIN") == "PLAIN"

    def test_the_proof_in_words_of_the_server_is_masked(self) -> None:
        with pytest.raises(AuthenticationFailed) as caught:
            scram(f"{UNTIL_PROOF}\nS: 535 5.7.8 not {CLIENT_FINAL} nor dHzbZapWIk4jUhN+Ute9ytag9zj")
        assert "dHzbZapW" not in str(caught.value)
        assert CLIENT_FINAL[-20:] not in str(caught.value)


TOKEN = "ya29.secret-token"
ERROR = b'{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}'
CHALLENGE = b64encode(ERROR).decode()


def initial_response(name: str, token: str) -> str:
    message = mechanism(name, Credentials("user", token=Secret(token))).initial()
    assert message is not None
    return b64encode(message).decode()


def with_token(said: str | Dialogue, *names: str, token: str = TOKEN) -> str:
    makers = [partial(mechanism, name, Credentials("user", token=Secret(token))) for name in names]
    return authenticate(said, makers)


class TestTokens:
    @pytest.mark.parametrize("name", ["XOAUTH2", "OAUTHBEARER"])
    def test_in_one_step(self, name: str) -> None:
        text = f"C: AUTH {name} {initial_response(name, TOKEN)}\nS: 235 2.7.0 Accepted"
        assert with_token(text, name) == name

    @pytest.mark.parametrize(("name", "answer"), [("XOAUTH2", ""), ("OAUTHBEARER", "AQ==")])
    def test_the_error_is_answered_and_told(self, name: str, answer: str) -> None:
        text = f"""
            C: AUTH {name} {initial_response(name, TOKEN)}
            S: 334 {CHALLENGE}
            C: {answer}
            S: 535 5.7.8 not accepted
        """
        dialogue = Dialogue(text)
        with pytest.raises(AuthenticationFailed) as caught:
            with_token(dialogue, name, "PLAIN")
        assert caught.value.challenge == ERROR.decode()
        assert (caught.value.smtp_code, caught.value.mechanism) == (535, name)
        assert dialogue.is_usable

    def test_an_error_that_quotes_the_token_is_masked(self) -> None:
        quoting = b64encode(f'{{"token":"{TOKEN}"}}'.encode()).decode()
        text = f"C: AUTH XOAUTH2 {initial_response('XOAUTH2', TOKEN)}\nS: 334 {quoting}\nC: \nS: 535 no"
        with pytest.raises(AuthenticationFailed) as caught:
            with_token(text, "XOAUTH2")
        assert "secret-token" not in f"{caught.value} {caught.value.challenge} {caught.value.__dict__}"
        assert caught.value.challenge.startswith('{"token":"')

    def test_an_error_is_not_forgotten_by_a_server_that_accepts_after_it(self) -> None:
        text = f"C: AUTH XOAUTH2 {initial_response('XOAUTH2', TOKEN)}\nS: 334 {CHALLENGE}\nC: \nS: 235 hm"
        with pytest.raises(AuthenticationFailed):
            with_token(text, "XOAUTH2")

    def test_two_errors_are_one_too_many(self) -> None:
        text = f"""
            C: AUTH XOAUTH2 {initial_response("XOAUTH2", TOKEN)}
            S: 334 {CHALLENGE}
            C:
            S: 334 {CHALLENGE}
            C: *
            S: 501 cancelled
        """
        with pytest.raises(ProtocolViolation):
            with_token(text, "XOAUTH2")

    def test_the_next_mechanism_where_the_server_lacks_one(self) -> None:
        text = f"""
            C: AUTH OAUTHBEARER {initial_response("OAUTHBEARER", TOKEN)}
            S: 504 5.5.4 unknown
            C: AUTH XOAUTH2 {initial_response("XOAUTH2", TOKEN)}
            S: 235 welcome
        """
        assert with_token(text, "OAUTHBEARER", "XOAUTH2") == "XOAUTH2"


class TestLongLines:
    """RFC 4954 section 4: the AUTH line has 512 octets with CRLF; what is longer goes out on request."""

    # "AUTH PLAIN " and CRLF are 13 octets, base64 comes in fours.
    FITTING, LONGER = "p" * (499 // 4 * 3 - 5), "p" * (499 // 4 * 3 - 4)

    def log_in(self, text: str, password: str) -> str:
        makers = [partial(mechanism, "PLAIN", Credentials("tim", Secret(password)))]
        return authenticate(text, makers)

    def test_what_just_fits_goes_with_the_command(self) -> None:
        response = b64encode(b"\0tim\0" + self.FITTING.encode()).decode()
        line = f"AUTH PLAIN {response}"
        assert len(line) + 2 in range(508, 513)
        assert self.log_in(f"C: {line}\nS: 235 welcome", self.FITTING) == "PLAIN"

    @pytest.mark.parametrize("challenge", ["334 ", "334", "334 ok, go on"])
    def test_what_does_not_waits_for_the_challenge(self, challenge: str) -> None:
        response = b64encode(b"\0tim\0" + self.LONGER.encode()).decode()
        assert len(f"AUTH PLAIN {response}") + 2 > 512
        text = f"C: AUTH PLAIN\nS: {challenge}\nC: {response}\nS: 235 welcome"
        assert self.log_in(text, self.LONGER) == "PLAIN"

    @pytest.mark.parametrize(("name", "answer"), [("XOAUTH2", ""), ("OAUTHBEARER", "AQ==")])
    def test_a_long_token_that_is_refused(self, name: str, answer: str) -> None:
        token = "t" * 3000
        text = f"""
            C: AUTH {name}
            S: 334
            C: {initial_response(name, token)}
            S: 334 {CHALLENGE}
            C: {answer}
            S: 535 5.7.8 no
        """
        with pytest.raises(AuthenticationFailed) as caught:
            with_token(text, name, token=token)
        assert caught.value.challenge == ERROR.decode()

    def test_a_refusal_of_the_bare_command(self) -> None:
        with pytest.raises(AuthenticationFailed) as caught:
            self.log_in("C: AUTH PLAIN\nS: 535 5.7.8 no", self.LONGER)
        assert caught.value.smtp_code == 535


def test_an_empty_initial_response_is_an_equals_sign() -> None:
    makers = [partial(mechanism, "EXTERNAL", Credentials(""))]
    assert authenticate("C: AUTH EXTERNAL =\nS: 235 welcome", makers) == "EXTERNAL"
