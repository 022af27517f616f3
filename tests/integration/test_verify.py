"""verify() of real servers: what it finds where all is well, and the stage that fails where it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mailbridge import VerifyReport
from mailbridge.verify import STAGE_NAMES
from tests.integration.conftest import StartMailer
from tests.integration.mails import INBOX, SENDER, addresses
from tests.servers.certificates import Certificates
from tests.servers.dovecot import PASSWORD, USERNAME, Dovecot
from tests.servers.fixtures import StartSmtpSink
from tests.servers.opensmtpd import OpenSmtpd
from tests.servers.postfix import OVER_QUOTA, REFUSED, Postfix
from tests.servers.process import free_port
from tests.servers.stunnel import Stunnel

LOGIN = {"username": USERNAME, "password": PASSWORD}
STARTTLS = {"security": "starttls"}
TLS = {"security": "tls"}
GOOD: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Postfix, clear": ("postfix", "plain", {}),
    "Postfix, STARTTLS": ("postfix", "plain", STARTTLS),
    "Postfix, submission": ("postfix", "submission", {**STARTTLS, **LOGIN}),
    "Postfix, smtps": ("postfix", "smtps", {**TLS, **LOGIN}),
    "Postfix, minimal": ("postfix", "minimal", {}),
    "Exim, clear": ("exim", "plain", LOGIN),
    "Exim, TLS": ("exim", "tls", {**TLS, **LOGIN}),
    "Dovecot, submission": ("dovecot", "submission", {**STARTTLS, **LOGIN}),
    "Dovecot, submissions": ("dovecot", "submissions", {**TLS, **LOGIN}),
    "OpenSMTPD": ("opensmtpd", "plain", {}),
    "stunnel": ("stunnel", "good", TLS),
}


def statuses(report: VerifyReport) -> dict[str, str]:
    return {stage.name: stage.status for stage in report if stage.status != "skipped"}


def failed(report: VerifyReport) -> list[str]:
    return [stage.name for stage in report if stage.status == "failed"]


@pytest.mark.parametrize(("server", "service", "options"), GOOD.values(), ids=GOOD)
def test_all_is_well(
    request: pytest.FixtureRequest, mailer: StartMailer, server: str, service: str, options: dict[str, Any]
) -> None:
    client = mailer(getattr(request.getfixturevalue(server), service), **options)
    report = client.verify(mail_from=SENDER, rcpt_to=addresses(2))
    assert report.ok, str(report)
    assert [stage.name for stage in report] == list(STAGE_NAMES)
    expected = {"config", "dns", "tcp", "greeting", "ehlo", "mail_from", "rcpt_to", "quit"}
    expected |= {"tls"} if "security" in options else set()
    expected |= {"auth"} if "username" in options else set()
    assert set(statuses(report)) == expected
    assert report["greeting"].detail.startswith("220 ")
    assert "SIZE" in report["ehlo"].detail
    assert "localhost is 127.0.0.1" in report["dns"].detail
    assert client.stats().opened_total == 0  # a connection of its own


def test_nothing_is_sent(postfix: Postfix, mailer: StartMailer) -> None:
    already = len(postfix.accepted_message_ids())
    assert mailer(postfix.plain).verify(mail_from=SENDER, rcpt_to=[INBOX]).ok
    assert len(postfix.accepted_message_ids()) == already


def test_tls_in_full(stunnel: Stunnel, mailer: StartMailer) -> None:
    detail = mailer(stunnel.good, **TLS).verify()["tls"].detail
    assert detail.startswith("TLSv1.3, TLS_")
    assert "certificate for localhost, mail.lab.test, 127.0.0.1" in detail
    assert "certificate valid for 29 days" in detail


def test_tls_that_is_not_verified_says_so(stunnel: Stunnel, mailer: StartMailer) -> None:
    report = mailer(stunnel.expired, tls={"verify": False}, **TLS).verify()
    assert report.ok
    assert "certificate not verified" in report["tls"].detail


@pytest.mark.parametrize("mechanism", ["PLAIN", "CRAM-MD5"])
def test_the_mechanism(dovecot: Dovecot, mailer: StartMailer, mechanism: str) -> None:
    client = mailer(dovecot.submission, auth=mechanism, **STARTTLS, **LOGIN)
    detail = client.verify()["auth"].detail
    assert detail.startswith(f"{mechanism} accepted; offered: ")
    assert "SCRAM-SHA-256" in detail


def test_why_stages_are_skipped(opensmtpd: OpenSmtpd, mailer: StartMailer) -> None:
    report = mailer(opensmtpd.plain, host="127.0.0.1").verify()
    skipped = {stage.name: stage.detail for stage in report if stage.status == "skipped"}
    assert skipped == {
        "dns": "no name",
        "proxy": "none configured",
        "tls": "security is none",
        "token": "no OAuth2 configured",
        "auth": "no credentials configured",
        "mail_from": "not asked for",
        "rcpt_to": "not asked for",
    }


class TestFailures:
    """Each is one stage; what comes behind it is not reached."""

    def check(self, report: VerifyReport, stage: str, detail: str, hint: str) -> None:
        assert not report.ok
        assert failed(report) == [stage], str(report)
        assert detail in report[stage].detail
        assert hint in report[stage].hint
        reached = {"ehlo"} if "STARTTLS" in report["ehlo"].detail else set()  # said before and after TLS
        behind = set(STAGE_NAMES[STAGE_NAMES.index(stage) + 1 :]) - reached
        assert {report[name].status for name in behind} == {"skipped"}
        assert json.loads(report.as_json())["ok"] is False
        assert PASSWORD not in str(report) + report.as_json()

    def test_name(self, mailer: StartMailer) -> None:
        report = mailer(free_port(), host="nowhere.invalid").verify()
        self.check(report, "dns", "nowhere.invalid", "name")

    def test_port(self, mailer: StartMailer) -> None:
        report = mailer(free_port()).verify()
        self.check(report, "tcp", "Connection refused by 127.0.0.1", "Nothing listens there")

    def test_greeting(self, smtp_sink: StartSmtpSink, mailer: StartMailer) -> None:
        report = mailer(smtp_sink("-f", "CONNECT")).verify()
        self.check(report, "greeting", "500", "The server does not talk to this address")

    def test_tls_on_a_port_for_clear_text(self, postfix: Postfix, mailer: StartMailer) -> None:
        report = mailer(postfix.plain, **TLS).verify()
        self.check(report, "tls", "speaks clear text", "Use security='starttls'")

    def test_clear_text_on_a_port_for_tls(self, postfix: Postfix, mailer: StartMailer) -> None:
        report = mailer(postfix.smtps, timeout=None, timeouts={"greeting": 0.3}, **STARTTLS).verify()
        self.check(report, "greeting", "did not answer in time", "try security='tls'")

    @pytest.mark.parametrize(
        ("service", "detail"),
        [
            ("expired", "has expired"),
            ("wrong_host", "is for another name"),
            ("self_signed", "is self-signed"),
            ("old_tls", "no TLS version in common"),
        ],
    )
    def test_certificate(self, stunnel: Stunnel, mailer: StartMailer, service: str, detail: str) -> None:
        report = mailer(getattr(stunnel, service), **TLS).verify()
        self.check(report, "tls", detail, "")
        assert report["tls"].hint

    def test_client_certificate(self, stunnel: Stunnel, mailer: StartMailer) -> None:
        report = mailer(stunnel.client_certificate, **TLS).verify()
        self.check(report, "tls", "requires a client certificate", "Set tls.cert_file")

    def test_private_ca(self, postfix: Postfix, mailer: StartMailer, certificates: Certificates) -> None:
        tls = {"ca_file": certificates.other_ca_file}
        report = mailer(postfix.plain, tls=tls, **STARTTLS).verify()
        self.check(report, "tls", "authority that is not trusted", "tls.ca_file")

    def test_no_starttls(self, smtp_sink: StartSmtpSink, mailer: StartMailer) -> None:
        report = mailer(smtp_sink(), **STARTTLS).verify()
        assert failed(report) == ["tls"]
        assert "STARTTLS extension not supported by server" in report["tls"].detail
        assert report["ehlo"].status == "ok"  # what the server offered instead

    def test_password(self, dovecot: Dovecot, mailer: StartMailer) -> None:
        client = mailer(dovecot.submission, username=USERNAME, password="wrong", **STARTTLS)
        self.check(client.verify(), "auth", "535", "Check username and password")
        self.check(client.verify(), "auth", "535", "Check username and password")  # tried anew each time

    def test_no_auth(self, postfix: Postfix, mailer: StartMailer) -> None:
        report = mailer(postfix.plain, **STARTTLS, **LOGIN).verify()
        self.check(report, "auth", "AUTH extension not supported", "Remove username and password")

    def test_sender(self, dovecot: Dovecot, mailer: StartMailer) -> None:
        report = mailer(dovecot.submission, **STARTTLS).verify(mail_from=SENDER)
        assert failed(report) == ["mail_from"]
        assert "530" in report["mail_from"].detail

    @pytest.mark.parametrize("service", ["plain", "minimal"])
    def test_recipients(self, postfix: Postfix, mailer: StartMailer, service: str) -> None:
        already = len(postfix.accepted_message_ids())
        client = mailer(getattr(postfix, service))
        report = client.verify(mail_from=SENDER, rcpt_to=[INBOX, REFUSED, OVER_QUOTA])
        assert failed(report) == ["rcpt_to"]
        detail = report["rcpt_to"].detail
        assert f"{INBOX}: 250" in detail
        assert f"{REFUSED}: 550 5.1.1" in detail
        assert f"{OVER_QUOTA}: 452 4.2.2" in detail
        assert report["quit"].status == "ok"
        assert len(postfix.accepted_message_ids()) == already
