"""Each server does what its fixture promises, seen with the standard library alone.

A test of mailbridge that fails while these pass has found something about mailbridge.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import time
import uuid
from contextlib import closing

import pytest

from tests.servers import postfix as postfix_module
from tests.servers.certificates import KEY_PASSWORD, Certificates
from tests.servers.dovecot import PASSWORD, USERNAME, Dovecot
from tests.servers.exim import RECIPIENT_LIMIT, Exim
from tests.servers.fixtures import StartRelay, StartSmtpSink
from tests.servers.opensmtpd import OpenSmtpd
from tests.servers.postfix import IDLE_SECONDS, SMALL_LIMIT, SMALL_RECIPIENTS, Postfix
from tests.servers.process import Endpoint, wait_until
from tests.servers.stunnel import Stunnel

SECONDS = 10.0
HOST = "localhost"
SENDER = "sender@example.test"
INBOX = "inbox@lab.test"
# OpenSSL's reasons (X509_V_ERR_...) for refusing a certificate.
UNKNOWN_CA, EXPIRED, SELF_SIGNED, OTHER_HOST = 20, 10, 18, 62


def message(body: bytes = b"hello\r\n") -> tuple[str, bytes]:
    message_id = f"<{uuid.uuid4().hex}@example.test>"
    date = b"Date: Fri, 20 Nov 2026 10:00:00 +0000"
    return (
        message_id,
        b"Message-ID: " + message_id.encode() + b"\r\n" + date + b"\r\nSubject: x\r\n\r\n" + body,
    )


def connect(endpoint: Endpoint, context: ssl.SSLContext | None = None) -> smtplib.SMTP:
    client = smtplib.SMTP(HOST, endpoint.port, local_hostname="client.test", timeout=SECONDS)
    client.ehlo()
    if context is not None:
        client.starttls(context=context)
        client.ehlo()
    return client


def connect_tls(endpoint: Endpoint, context: ssl.SSLContext) -> smtplib.SMTP_SSL:
    client = smtplib.SMTP_SSL(
        HOST, endpoint.port, local_hostname="client.test", timeout=SECONDS, context=context
    )
    client.ehlo()
    return client


def answer_to_first_read(endpoint: Endpoint, context: ssl.SSLContext, name: str = HOST) -> bytes:
    with (
        socket.create_connection(endpoint.address, timeout=SECONDS) as raw,
        context.wrap_socket(raw, server_hostname=name) as tls,
    ):
        return tls.recv(1000)


@pytest.fixture
def trusting(certificates: Certificates) -> ssl.SSLContext:
    """Trusts the CA and checks all that Python 3.13 checks by default, on older ones too."""
    context = ssl.create_default_context(cafile=str(certificates.ca_file))
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


class TestPostfix:
    def test_offers_every_extension(self, postfix: Postfix) -> None:
        with connect(postfix.plain) as client:
            offered = set(client.esmtp_features)
        assert {"pipelining", "chunking", "starttls", "8bitmime", "smtputf8", "dsn", "size"} <= offered

    def test_starttls_with_the_ca(self, postfix: Postfix, trusting: ssl.SSLContext) -> None:
        with connect(postfix.plain, trusting) as client:
            assert "pipelining" in client.esmtp_features
            assert "starttls" not in client.esmtp_features

    @pytest.mark.parametrize(
        "body",
        [
            b"hello\r\n",
            b".\r\n..\r\n.dot\r\n\r\n.\r\n",
            b"From here\r\n\r\n\r\n",
            "grüße\r\n".encode(),
            b"x" * 990 + b"\r\n",
        ],
        ids=["plain", "dots", "from", "utf8", "long"],
    )
    def test_stores_what_was_sent(self, postfix: Postfix, body: bytes) -> None:
        message_id, content = message(body)
        with connect(postfix.plain) as client:
            client.sendmail(SENDER, [INBOX], content)
        assert postfix.delivered(message_id) == [content]
        [copy] = postfix.copies(message_id)
        assert (copy.sender, copy.recipients) == (SENDER, (INBOX,))

    def test_stores_a_copy_for_each_recipient(self, postfix: Postfix) -> None:
        message_id, content = message()
        recipients = [f"r{number}@lab.test" for number in range(60)]
        with connect(postfix.plain) as client:
            client.sendmail(SENDER, recipients, content)
        assert sorted(copy.recipients[0] for copy in postfix.copies(message_id)) == sorted(recipients)
        assert postfix.accepted_message_ids().count(message_id) == 1

    def test_counts_a_message_that_was_sent_twice(self, postfix: Postfix) -> None:
        message_id, content = message()
        with connect(postfix.plain) as client:
            client.sendmail(SENDER, [INBOX], content)
            client.sendmail(SENDER, [INBOX], content)
            assert postfix.accepted_message_ids().count(message_id) == 2
        assert postfix.delivered(message_id) == [content, content]

    def test_counts_at_once_what_it_has_just_accepted(self, postfix: Postfix) -> None:
        with connect(postfix.plain) as client:
            for _ in range(20):
                message_id, content = message()
                client.sendmail(SENDER, ["somebody@elsewhere.test"], content)
                assert postfix.accepted_message_ids().count(message_id) == 1

    def test_does_not_count_what_broke_off_in_the_content(self, postfix: Postfix) -> None:
        message_id, content = message()
        with closing(connect(postfix.plain)) as client:
            client.mail(SENDER)
            client.rcpt(INBOX)
            assert client.docmd("DATA")[0] == 354
            client.send(content * 1000)
        assert wait_until(lambda: "lost connection after DATA" in postfix.log(), SECONDS)
        assert message_id in postfix.log()
        assert message_id not in postfix.accepted_message_ids()
        assert postfix.delivered(message_id) == []

    def test_takes_20_megabytes(self, postfix: Postfix) -> None:
        message_id, content = message((b"x" * 998 + b"\r\n") * 27_000)
        with connect(postfix.plain) as client:
            client.sendmail(SENDER, [INBOX], content)
        assert postfix.delivered(message_id) == [content]

    @pytest.mark.parametrize(("recipient", "answer"), postfix_module.RECIPIENT_ANSWERS.items())
    def test_refuses_some_recipients(self, postfix: Postfix, recipient: str, answer: str) -> None:
        with connect(postfix.plain) as client:
            client.mail(SENDER)
            code, text = client.rcpt(recipient)
            assert (code, text[:5].decode()) == (int(answer[:3]), answer[4:9])
            assert client.rcpt(INBOX)[0] == 250

    def test_small_bounds_size_and_recipients(self, postfix: Postfix) -> None:
        with connect(postfix.small) as client:
            assert client.esmtp_features["size"] == str(SMALL_LIMIT)
            code, text = client.mail(SENDER, [f"SIZE={SMALL_LIMIT + 1}"])
            assert (code, text[:5]) == (552, b"5.3.4")
            client.rset()  # without it Postfix refuses the next MAIL, too, for the size of this one
            client.mail(SENDER)
            codes = [client.rcpt(f"r{number}@lab.test")[0] for number in range(SMALL_RECIPIENTS + 1)]
        assert codes == [250] * SMALL_RECIPIENTS + [452]

    def test_minimal_offers_little(self, postfix: Postfix) -> None:
        with connect(postfix.minimal) as client:
            assert {"pipelining", "chunking", "smtputf8", "dsn", "8bitmime"}.isdisjoint(client.esmtp_features)
            assert "starttls" in client.esmtp_features

    def test_idle_hangs_up(self, postfix: Postfix) -> None:
        with closing(connect(postfix.idle)) as client:
            assert client.noop()[0] == 250
            start = time.monotonic()
            assert client.getreply()[0] == 421
            assert IDLE_SECONDS - 0.5 < time.monotonic() - start < IDLE_SECONDS + 5
            with pytest.raises(smtplib.SMTPServerDisconnected):
                client.noop()

    def test_submission_wants_tls_then_a_login(self, postfix: Postfix, trusting: ssl.SSLContext) -> None:
        with connect(postfix.submission) as client:
            assert "auth" not in client.esmtp_features
            assert client.docmd(f"MAIL FROM:<{SENDER}>")[0] == 530
        with connect(postfix.submission, trusting) as client:
            client.mail(SENDER)
            assert client.rcpt(INBOX)[0] in (530, 550, 554)

    def test_smtps_speaks_tls_at_once(self, postfix: Postfix, trusting: ssl.SSLContext) -> None:
        message_id, content = message()
        with connect_tls(postfix.smtps, trusting) as client:
            client.login(USERNAME, PASSWORD)
            client.sendmail(SENDER, [INBOX], content)
        assert postfix.delivered(message_id) == [content]

    def test_answer_to_the_final_dot_can_be_withheld(self, postfix: Postfix, relay: StartRelay) -> None:
        proxy = relay(postfix.plain.address, cut_before=b"queued as")
        message_id, content = message()
        with closing(connect(Endpoint(proxy.port))) as client, pytest.raises(smtplib.SMTPServerDisconnected):
            client.sendmail(SENDER, [INBOX], content)
        assert postfix.accepted_message_ids().count(message_id) == 1

    def test_relay_counts_the_round_trips_of_smtplib(self, postfix: Postfix, relay: StartRelay) -> None:
        proxy = relay(postfix.plain.address)
        with connect(Endpoint(proxy.port)) as client:
            before = proxy.round_trips
            client.sendmail(SENDER, [INBOX, "other@lab.test"], message()[1])
            # MAIL, two RCPT, DATA, the content
            assert (before, proxy.round_trips) == (1, 1 + 5)


def log_in(client: smtplib.SMTP, mechanism: str, password: str) -> int:
    """The code of the answer to AUTH with this mechanism and no other."""
    client.user, client.password = USERNAME, password
    step = getattr(client, "auth_" + mechanism.lower().replace("-", "_"))
    assert mechanism in client.esmtp_features["auth"].split()
    try:
        return client.auth(mechanism, step, initial_response_ok=mechanism == "PLAIN")[0]
    except smtplib.SMTPAuthenticationError as refusal:
        return refusal.smtp_code


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
class TestLogin:
    def test_postfix(self, postfix: Postfix, trusting: ssl.SSLContext, mechanism: str) -> None:
        message_id, content = message()
        with connect(postfix.submission, trusting) as client:
            assert log_in(client, mechanism, "wrong") == 535
            assert log_in(client, mechanism, PASSWORD) == 235
            client.sendmail(SENDER, [INBOX], content)
        assert postfix.delivered(message_id) == [content]

    def test_dovecot(self, dovecot: Dovecot, trusting: ssl.SSLContext, mechanism: str) -> None:
        message_id, content = message(b".dots\r\n")
        with connect(dovecot.submission, trusting) as client:
            assert log_in(client, mechanism, "wrong") == 535
            assert log_in(client, mechanism, PASSWORD) == 235
            client.sendmail(SENDER, [INBOX, "other@lab.test"], content)
        [stored] = [stored for stored in dovecot.messages() if stored.message_id == message_id]
        assert (stored.content, stored.recipients) == (content, (INBOX, "other@lab.test"))


class TestDovecot:
    def test_submissions_speaks_tls_at_once(self, dovecot: Dovecot, trusting: ssl.SSLContext) -> None:
        with connect_tls(dovecot.submissions, trusting) as client:
            assert client.login(USERNAME, PASSWORD)[0] == 235

    def test_offers_the_login_in_the_clear_on_loopback(self, dovecot: Dovecot) -> None:
        with connect(dovecot.submission) as client:
            assert {"starttls", "auth"} <= set(client.esmtp_features)

    def test_nothing_without_a_login(self, dovecot: Dovecot, trusting: ssl.SSLContext) -> None:
        with connect(dovecot.submission, trusting) as client:
            assert client.docmd(f"MAIL FROM:<{SENDER}>")[0] == 530


class TestExim:
    def test_offers(self, exim: Exim) -> None:
        with connect(exim.plain) as client:
            offered = client.esmtp_features
        assert {"pipelining", "chunking", "prdr", "starttls", "smtputf8", "dsn"} <= set(offered)
        assert offered["auth"].split() == ["CRAM-MD5"]

    def test_stores_what_was_sent(self, exim: Exim, trusting: ssl.SSLContext) -> None:
        message_id, content = message(b".dots\r\n\r\nFrom here\r\n")
        with connect(exim.plain, trusting) as client:
            assert log_in(client, "PLAIN", PASSWORD) == 235
            client.sendmail(SENDER, [INBOX, "other@lab.test"], content)
            assert exim.accepted_message_ids().count(message_id) == 1
        assert exim.delivered(message_id) == [content, content]

    def test_login_in_the_clear(self, exim: Exim) -> None:
        with connect(exim.plain) as client:
            assert log_in(client, "CRAM-MD5", "wrong") == 535
            assert log_in(client, "CRAM-MD5", PASSWORD) == 235

    def test_tls_at_once(self, exim: Exim, trusting: ssl.SSLContext) -> None:
        with connect_tls(exim.tls, trusting) as client:
            assert client.noop()[0] == 250

    def test_refuses_some_recipients(self, exim: Exim) -> None:
        with connect(exim.plain) as client:
            client.mail(SENDER)
            assert client.rcpt("gone@lab.test")[0] == 550
            assert client.rcpt("later@lab.test")[0] == 451
            codes = [client.rcpt(f"r{number}@lab.test")[0] for number in range(RECIPIENT_LIMIT + 1)]
        assert codes.count(250) in (RECIPIENT_LIMIT, RECIPIENT_LIMIT - 2)  # refused ones may count
        assert codes[-1] == 452


class TestOpenSmtpd:
    def test_offers_no_pipelining(self, opensmtpd: OpenSmtpd) -> None:
        with connect(opensmtpd.plain) as client:
            assert {"pipelining", "chunking"}.isdisjoint(client.esmtp_features)
            assert {"8bitmime", "size"} <= set(client.esmtp_features)

    def test_passes_on_what_was_sent(self, opensmtpd: OpenSmtpd) -> None:
        count = len(opensmtpd.messages())
        message_id, content = message(b".dots\r\n")
        with connect(opensmtpd.plain) as client:
            client.sendmail(SENDER, [INBOX], content)
        stored = opensmtpd.messages(at_least=count + 1)[-1]
        assert (stored.message_id, stored.content) == (message_id, content)
        assert stored.recipients == (INBOX,)


class TestStunnel:
    def test_good_certificate(self, stunnel: Stunnel, trusting: ssl.SSLContext) -> None:
        with connect_tls(stunnel.good, trusting) as client:
            assert "pipelining" in client.esmtp_features

    @pytest.mark.parametrize(
        ("front", "reason"),
        [("expired", EXPIRED), ("wrong_host", OTHER_HOST), ("self_signed", SELF_SIGNED)],
    )
    def test_bad_certificate(
        self, stunnel: Stunnel, trusting: ssl.SSLContext, front: str, reason: int
    ) -> None:
        with pytest.raises(ssl.SSLCertVerificationError) as error:
            connect_tls(getattr(stunnel, front), trusting)
        assert error.value.verify_code == reason

    def test_unknown_ca(self, stunnel: Stunnel, certificates: Certificates) -> None:
        context = ssl.create_default_context(cafile=str(certificates.other_ca_file))
        with pytest.raises(ssl.SSLCertVerificationError) as error:
            connect_tls(stunnel.good, context)
        assert error.value.verify_code == UNKNOWN_CA

    @pytest.mark.parametrize("name", ["localhost", "mail.lab.test", "127.0.0.1", "::1"])
    def test_names_of_the_good_certificate(
        self, stunnel: Stunnel, trusting: ssl.SSLContext, name: str
    ) -> None:
        assert answer_to_first_read(stunnel.good, trusting, name).startswith(b"220")

    def test_starttls_with_the_expired_one(self, stunnel: Stunnel, trusting: ssl.SSLContext) -> None:
        client = connect(stunnel.starttls_expired)
        with closing(client), pytest.raises(ssl.SSLCertVerificationError) as error:
            client.starttls(context=trusting)
        assert error.value.verify_code == EXPIRED

    def test_old_tls_is_refused(self, stunnel: Stunnel, trusting: ssl.SSLContext) -> None:
        trusting.minimum_version = ssl.TLSVersion.TLSv1_2  # Debian's Python leaves it to OpenSSL's settings
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol"):
            answer_to_first_read(stunnel.old_tls, trusting)

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
    def test_old_tls_works_for_who_insists(self, stunnel: Stunnel, trusting: ssl.SSLContext) -> None:
        trusting.set_ciphers("ALL:@SECLEVEL=0")
        trusting.minimum_version = ssl.TLSVersion.TLSv1_1
        assert answer_to_first_read(stunnel.old_tls, trusting).startswith(b"220")

    def test_client_certificate(
        self, stunnel: Stunnel, trusting: ssl.SSLContext, certificates: Certificates
    ) -> None:
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
            answer_to_first_read(stunnel.client_certificate, trusting)
        stranger = certificates.stranger
        trusting.load_cert_chain(stranger.cert_file, stranger.key_file)
        with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
            answer_to_first_read(stunnel.client_certificate, trusting)
        client = certificates.client
        trusting.load_cert_chain(client.cert_file, client.locked_key_file, KEY_PASSWORD)
        assert answer_to_first_read(stunnel.client_certificate, trusting).startswith(b"220")


class TestSmtpSink:
    def test_keeps_what_was_sent(self, smtp_sink: StartSmtpSink) -> None:
        sink = smtp_sink()
        _, content = message(b".dots\r\n\r\n")
        with connect(sink.endpoint) as client:
            client.sendmail(SENDER, [INBOX, "other@lab.test"], content, ["BODY=8BITMIME"])
        [stored] = sink.messages(at_least=1)
        assert (stored.sender, stored.recipients) == (SENDER, (INBOX, "other@lab.test"))
        assert (stored.mail_parameters, stored.content) == ("BODY=8BITMIME", content)

    def test_keeps_nothing_of_what_broke_off(self, smtp_sink: StartSmtpSink) -> None:
        sink = smtp_sink()
        message_id, content = message()
        for end in ("RSET", "QUIT", None):
            with closing(connect(sink.endpoint)) as client:
                client.mail(SENDER)
                client.rcpt(INBOX)
                assert sink.messages() == []
                if end is not None:
                    client.docmd(end)
                else:
                    assert client.docmd("DATA")[0] == 354
                    client.send(content * 1000)
        with connect(sink.endpoint) as client:
            client.sendmail(SENDER, [INBOX], content)
        assert [stored.message_id for stored in sink.messages(at_least=1)] == [message_id]

    def test_hangs_up_instead_of_answering_the_final_dot(self, smtp_sink: StartSmtpSink) -> None:
        sink = smtp_sink("-q", ".")
        with closing(connect(sink.endpoint)) as client, pytest.raises(smtplib.SMTPServerDisconnected):
            client.sendmail(SENDER, [INBOX], message()[1])

    @pytest.mark.parametrize(("option", "code"), [("-f", 500), ("-r", 450), ("-Q", 421)])
    def test_refuses_a_command(self, smtp_sink: StartSmtpSink, option: str, code: int) -> None:
        with closing(connect(smtp_sink(option, "RCPT").endpoint)) as client:
            client.mail(SENDER)
            assert client.rcpt(INBOX)[0] == code

    def test_answers_550_in_the_middle_of_the_content(self, smtp_sink: StartSmtpSink) -> None:
        with closing(connect(smtp_sink("-A", "0").endpoint)) as client:
            client.mail(SENDER)
            client.rcpt(INBOX)
            assert client.docmd("DATA")[0] == 354
            client.send(message()[1])
            assert client.getreply()[0] == 550
