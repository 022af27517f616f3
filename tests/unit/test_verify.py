"""verify(): every stage in its place, what failed, what to do, and nothing sent."""

import json

import pytest

from mailbridge import Mailer, SMTPConfig, VerifyReport
from mailbridge.testing import Fault, ScriptedServer
from mailbridge.verify import STAGE_NAMES


def verify(
    server: ScriptedServer, *, mail_from: str | None = None, to: list[str] | None = None, **options: object
) -> VerifyReport:
    settings = {"host": "127.0.0.1", "port": server.port, "security": "none", "timeout": 10, **options}
    return Mailer(SMTPConfig.from_mapping(settings)).verify(mail_from=mail_from, rcpt_to=to or [])


def statuses(report: VerifyReport) -> dict[str, str]:
    return {stage.name: stage.status for stage in report if stage.status != "skipped"}


def test_all_is_well() -> None:
    with ScriptedServer(users={"u": "p"}) as server:
        report = verify(server, username="u", password="p", mail_from="a@x.example", to=["b@y.example"])
        assert report.ok
        assert [stage.name for stage in report] == list(STAGE_NAMES)
        assert set(statuses(report).values()) == {"ok"}
        assert "PIPELINING" in report["ehlo"].detail
        assert "accepted" in report["auth"].detail
        assert server.messages == ()
        assert server.connections[0].commands[-2:] == [b"RSET", b"QUIT"]


def test_a_name_that_leads_nowhere_was_resolved_all_the_same() -> None:
    with ScriptedServer() as server:
        pass
    report = verify(server, host="localhost")
    assert (report["dns"].status, report["dns"].detail) == ("ok", "resolved")
    assert (report["tcp"].status, report["greeting"].status) == ("failed", "skipped")
    assert verify(server)["dns"].detail == "no name"
    report = verify(server, host="nobody.invalid")
    assert (report["dns"].status, report["tcp"].detail) == ("failed", "not reached")


def test_without_addresses_nobody_is_asked() -> None:
    with ScriptedServer() as server:
        report = verify(server)
        assert report.ok
        assert report["mail_from"].detail == "not asked for"
        assert [line.split(b" ")[0] for line in server.connections[0].commands] == [b"EHLO", b"QUIT"]


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        ("greeting", Fault("greeting", "close")),
        ("greeting", Fault("greeting", "silence")),
        ("greeting", Fault("greeting", "garbage")),
        ("ehlo", Fault("ehlo", "close")),
        ("ehlo", Fault("ehlo", "silence")),
        ("auth", Fault("auth", "close")),
        ("mail_from", Fault("mail", "close")),
        ("rcpt_to", Fault("rcpt", "close")),
        ("quit", Fault("quit", "close")),
    ],
)
def test_the_stage_that_failed_is_the_one_that_failed(stage: str, fault: Fault) -> None:
    with ScriptedServer(users={"u": "p"}, faults=[fault]) as server:
        seconds = 1 if fault.kind == "silence" else 10
        report = verify(
            server, username="u", password="p", timeout=seconds, mail_from="a@x.example", to=["b@y.example"]
        )
        assert not report.ok
        assert [name for name, status in statuses(report).items() if status == "failed"] == [stage]
        before = STAGE_NAMES.index(stage)
        assert all(statuses(report).get(name) != "ok" for name in STAGE_NAMES[before + 1 :])
        assert report[stage].detail


def test_a_refused_recipient_fails_its_stage_and_names_the_reply() -> None:
    with ScriptedServer(rcpt_replies={"gone@y.example": "550 5.1.1 nobody"}) as server:
        report = verify(server, mail_from="a@x.example", to=["b@y.example", "gone@y.example"])
        assert statuses(report)["rcpt_to"] == "failed"
        assert "gone@y.example: 550 5.1.1 nobody" in report["rcpt_to"].detail
        assert report["quit"].status == "ok"


def test_a_wrong_password_has_a_hint() -> None:
    with ScriptedServer(users={"u": "p"}) as server:
        report = verify(server, username="u", password="wrong")
        assert statuses(report)["auth"] == "failed"
        assert "username and password" in report["auth"].hint


def test_nobody_listens() -> None:
    with ScriptedServer() as server:
        pass
    report = verify(server)
    assert statuses(report) == {"config": "ok", "tcp": "failed"}
    assert "refused" in report["tcp"].detail
    assert report["tcp"].hint


def test_a_success_lets_refused_credentials_be_tried_again() -> None:
    with ScriptedServer(
        users={"u": "p"}, faults=[Fault("auth", "reply", reply="535 5.7.8 not yet")]
    ) as server:
        settings = {
            "host": "127.0.0.1",
            "port": server.port,
            "security": "none",
            "username": "u",
            "password": "p",
        }
        mailer = Mailer(SMTPConfig.from_mapping(settings))
        with pytest.raises(OSError, match="535"):
            mailer.connect()
        with pytest.raises(OSError, match="Not tried again"):
            mailer.connect()
        assert mailer.verify().ok
        assert mailer.connect()
        mailer.close()


def test_the_report_as_json_and_as_a_table() -> None:
    with ScriptedServer() as server:
        report = verify(server)
    facts = json.loads(report.as_json())
    assert facts["ok"] is True
    assert [stage["name"] for stage in facts["stages"]] == list(STAGE_NAMES)
    assert set(facts["stages"][0]) == {"name", "status", "seconds", "detail", "hint"}
    assert len(str(report).splitlines()) == len(STAGE_NAMES)


def test_an_address_that_is_none_fails_the_stage_that_would_ask_for_it() -> None:
    with ScriptedServer() as server:
        report = verify(server, mail_from="nobody")
    assert statuses(report)["mail_from"] == "failed"
    assert "Invalid address" in report["mail_from"].detail
