"""mailbridge.results: plain values that can be shown, pickled and copied."""

import copy
import json
import pickle
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.message.envelope import Envelope
from mailbridge.reply import MAX_SHOWN_CHARACTERS, Reply, printable
from mailbridge.results import SendResult
from mailbridge.verify import STAGE_NAMES, Stage, VerifyReport


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain ü 用", "plain ü 用"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x1b[31m\x00\x7f", "\\x1b[31m\\x00\\x7f"),
        ("\x85\u2028\u202e\ud800", "\\x85\\u2028\\u202e\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(max_size=200), st.integers(0, 100))
def test_what_is_shown_is_printable_and_bounded(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit + 1
    assert (len(shown) == limit + 1) == shown.endswith("…") or "…" in text


def test_the_limit_keeps_what_fits() -> None:
    assert printable("x" * 10, 10) == "x" * 10
    assert printable("x" * 11, 10) == "x" * 10 + "…"
    assert len(printable("\0" * 10**7)) == MAX_SHOWN_CHARACTERS + 1


@pytest.mark.parametrize(
    ("code", "positive", "transient", "permanent"),
    [
        (199, False, False, False),
        (200, True, False, False),
        (250, True, False, False),
        (299, True, False, False),
        (354, False, False, False),
        (400, False, True, False),
        (499, False, True, False),
        (500, False, False, True),
        (599, False, False, True),
        (600, False, False, False),
    ],
)
def test_the_class_of_a_reply(code: int, positive: bool, transient: bool, permanent: bool) -> None:
    reply = Reply(code)
    assert (reply.is_positive, reply.is_transient, reply.is_permanent) == (positive, transient, permanent)


def test_a_reply_is_shown_in_one_line() -> None:
    assert str(Reply(250, ("2.1.5 Ok", "queued\x1b"))) == "250 2.1.5 Ok queued\\x1b"
    assert str(Reply(250)) == "250"
    assert Reply(250, ("a", "b\x1b")).text == "a\nb\x1b"
    assert len(str(Reply(250, ("x" * 10**6,)))) <= MAX_SHOWN_CHARACTERS + 5


def result() -> SendResult:
    return SendResult(
        accepted=("b@y",),
        rejected={"c@y": Reply(550, ("no",), (5, 1, 1))},
        response=Reply(250, ("Ok: queued as 4XYZ",)),
        envelope=Envelope("a@x", ["b@y", "c@y"]),
        message_size=123,
        queue_id="4XYZ",
        timings={"total": 0.1},
    )


def test_results_can_be_pickled_and_copied() -> None:
    for made in (result(), Reply(250, ("x",), (2, 0, 0)), report()):
        assert pickle.loads(pickle.dumps(made)) == made == copy.deepcopy(made)


def test_results_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        result().attempts = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Reply(250).code = 550  # type: ignore[misc]


def report() -> VerifyReport:
    return VerifyReport(
        server="mx.example:587",
        stages=(
            Stage(name="config", status="ok", seconds=0.00012345678, detail="mx.example:587"),
            Stage(name="proxy", status="skipped"),
            Stage(name="tls", status="failed", seconds=1.5, detail="expired", hint="Renew it."),
        ),
    )


def test_a_report_is_ok_if_no_stage_failed() -> None:
    assert not report().ok
    assert VerifyReport(server="x", stages=report().stages[:2]).ok
    assert VerifyReport(server="x", stages=()).ok


def test_stages_are_found_by_name_and_in_order() -> None:
    assert report()["tls"].hint == "Renew it."
    assert [stage.name for stage in report()] == ["config", "proxy", "tls"]
    with pytest.raises(KeyError, match="auth"):
        report()["auth"]
    assert " ".join(STAGE_NAMES) == "config dns proxy tcp greeting tls ehlo token auth mail_from rcpt_to quit"


def test_a_report_as_a_table() -> None:
    assert str(report()).split("\n") == [
        "config     ok           0.1 ms  mx.example:587",
        "proxy      skipped",
        "tls        failed    1500.0 ms  expired",
        "           hint:                Renew it.",
    ]


def test_a_report_as_json() -> None:
    assert json.loads(report().as_json()) == report().as_dict()
    assert report().as_dict() == {
        "server": "mx.example:587",
        "ok": False,
        "stages": [
            {"name": "config", "status": "ok", "seconds": 0.000123, "detail": "mx.example:587", "hint": ""},
            {"name": "proxy", "status": "skipped", "seconds": 0.0, "detail": "", "hint": ""},
            {"name": "tls", "status": "failed", "seconds": 1.5, "detail": "expired", "hint": "Renew it."},
        ],
    }


def several(*statuses: str) -> VerifyReport:
    return VerifyReport.of_several(
        VerifyReport(
            server=f"{number}.example:25",
            stages=(Stage(name="config", status="ok"), Stage(name="tcp", status=status)),  # type: ignore[arg-type]
        )
        for number, status in enumerate(statuses)
    )


def test_a_report_of_several_servers() -> None:
    report = several("ok", "failed")
    assert (report.server, report.ok) == ("0.example:25, 1.example:25", False)
    assert [(stage.name, stage.status) for stage in report] == [
        ("config", "ok"),
        ("tcp", "ok"),
        ("config", "ok"),
        ("tcp", "failed"),
    ]
    assert several("ok", "skipped").ok
    assert [each["ok"] for each in report.as_dict()["servers"]] == [True, False]
    assert json.loads(report.as_json())["stages"] == []
    assert pickle.loads(pickle.dumps(report)) == report
    with pytest.raises(KeyError, match=r"each of \.servers has"):
        report["tcp"]


def test_its_table_names_each_server_over_its_stages() -> None:
    lines = str(several("ok", "failed")).splitlines()
    assert [line.split()[0] for line in lines] == [
        "0.example:25",
        "config",
        "tcp",
        "1.example:25",
        "config",
        "tcp",
    ]


def test_a_report_of_one_server_says_nothing_of_several() -> None:
    assert "servers" not in VerifyReport(server="x:25", stages=()).as_dict()
