"""The command line as a person uses it: output, exit codes, no password anywhere."""

import io
import json
import os
import subprocess
import sys
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from mailbridge.cli.main import main
from mailbridge.testing import ScriptedServer

SEND = ("send", "smtp://x/", "--from", "a@x.example", "--to", "b@y.example")


def url(server: ScriptedServer, credentials: str = "") -> str:
    return f"smtp://{credentials}127.0.0.1:{server.port}/?security=none"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_verify_prints_a_table_without_colours_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(users={"u": "hunter2"}) as server:
        code, out, err = run(
            capsys, "verify", url(server, "u:hunter2@"), "--from", "a@x.example", "--to", "b@y.example"
        )
    assert (code, err) == (0, "")
    assert "all is well" in out
    assert "rcpt_to    ok" in out
    assert "\033" not in out
    assert "hunter2" not in out


def test_verify_has_colours_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with ScriptedServer() as server:
        _, out, _ = run(capsys, "verify", url(server))
        assert "\033[32m" in out
        monkeypatch.setenv("NO_COLOR", "1")
        _, out, _ = run(capsys, "verify", url(server))
    assert "\033" not in out


def test_verify_fails_with_1_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(users={"u": "p"}) as server:
        code, out, _ = run(capsys, "verify", url(server, "u:hunter2@"))
    assert code == 1
    assert "1 stage(s) failed" in out
    assert "hint:" in out
    assert "hunter2" not in out


def test_verify_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer() as server:
        code, out, _ = run(capsys, "verify", url(server), "--json")
    assert code == 0
    assert json.loads(out)["ok"] is True


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["verify", "smtp://u:hunter2@x/?hst=1"], "Unknown option 'hst'"),
        (["verify", "http://u:hunter2@x/"], "must start with smtp"),
        (["verify"], "MAILBRIDGE_URL"),
        (["verify", "smtp://x/?tls.ca_file=/etc/ca.pem"], "on the command line, use --option"),
        (["verify", "smtp://x/", "--option", "tls.ca_fil=/etc/ca.pem"], "Did you mean 'tls.ca_file'"),
        (["verify", "smtp://x/", "--option", "hunter2"], "--option takes NAME=VALUE"),
        (["verify", "smtp://x/", "--option", "tls..ca_file=hunter2"], "--option takes NAME=VALUE"),
        (["verify", "smtp://x/", "smtp://y/", "--option", "port=25"], "'port' can't stand beside 'servers'"),
        (["verify", "smtp://x/", "--to", "b@y.example"], "--to needs --from"),
        (["send", "smtp://x/", "--from", "a@x.example", "--to", "b@y<evil>"], "Invalid address"),
        (
            ["send", "smtp://x/", "--from", "a@x.example", "--to", "b@y.example", "--raw", "/nowhere/x"],
            "No such file",
        ),
        (
            [*SEND, "--raw", __file__, "--subject", "x"],
            "--raw is a whole message, so nothing is added to it: --subject",
        ),
        ([*SEND, "--raw", __file__, "--html", "x", "--attach", "y"], "--html, --attach"),
        ([*SEND, "--file", sys.executable], "is not text in UTF-8"),
        ([*SEND, "--html", sys.executable], "is not text in UTF-8"),
    ],
)
def test_wrong_usage_is_2(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAILBRIDGE_URL", raising=False)
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert problem in err
    assert "hunter2" not in err


def test_usage_errors_of_the_parser_are_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["send", "smtp://x/"])
    assert caught.value.code == 2


def test_the_url_may_come_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer() as server:
        monkeypatch.setenv("MAILBRIDGE_URL", url(server))
        assert run(capsys, "verify")[0] == 0


ADDRESSES = ("--from", "a@x.example", "--to", "b@y.example")


def test_send_text_html_and_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<b>hello</b>")
    (tmp_path / "data.bin").write_bytes(b"\x00\x01")
    with ScriptedServer() as server:
        code, out, _ = run(
            capsys,
            *("send", url(server), *ADDRESSES, "--subject", "Grüße", "--text", "hello"),
            *("--html", str(tmp_path / "page.html"), "--attach", str(tmp_path / "data.bin")),
        )
        content = server.messages[0].content
    assert code == 0
    assert f"127.0.0.1:{server.port} took" in out
    for part in (b"multipart/mixed", b"text/plain", b"text/html", b'filename="data.bin"', b"=?utf-8?"):
        assert part in content


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    """As `head` is."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mailbridge", "services"],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_html_alone_has_no_empty_text_beside_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<b>hello</b>")
    with ScriptedServer() as server:
        run(capsys, "send", url(server), *ADDRESSES, "--html", str(tmp_path / "page.html"))
        message = message_from_bytes(server.messages[0].content, policy=policy.default)
    assert message.get_content_type() == "text/html"


def test_send_a_whole_message_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(b"Subject: raw\n\n.dot\n")
    with ScriptedServer() as server:
        run(capsys, "send", url(server), *ADDRESSES, "--raw", str(tmp_path / "a.eml"))
        assert server.messages[0].content == b"Subject: raw\r\n\r\n.dot\r\n"


def test_send_a_whole_message_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"Subject: raw\n\n" + b".text\n" * 300_000
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    with ScriptedServer() as server:
        code, out, _ = run(capsys, "send", url(server), *ADDRESSES, "--raw", "-")
        assert server.messages[0].content == data.replace(b"\n", b"\r\n")
    assert code == 0
    assert "took 2100016 bytes" in out


@pytest.mark.parametrize(("name", "why"), [("none.eml", "No such file"), ("nul.eml", "a NUL")])
def test_a_whole_message_that_can_not_be_sent(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, why: str
) -> None:
    (tmp_path / "nul.eml").write_bytes(b"Subject: raw\n\n\0\n")
    with ScriptedServer() as server:
        code, _, err = run(capsys, "send", url(server), *ADDRESSES, "--raw", str(tmp_path / name))
        assert (code, len(server.messages)) == (2, 0)
    assert why in err


def test_send_reads_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("Grüße".encode())))
    with ScriptedServer() as server:
        assert run(capsys, "send", url(server), *ADDRESSES, "--file", "-")[0] == 0
        message = message_from_bytes(server.messages[0].content, policy=policy.default)
        assert message.get_content().strip() == "Grüße"


def test_send_as_json_tells_a_partial_refusal_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(rcpt_replies={"gone@y.example": "550 5.1.1 nobody"}) as server:
        code, out, _ = run(capsys, "send", url(server), *ADDRESSES, "--to", "gone@y.example", "--json")
    facts = json.loads(out)
    assert code == 1
    assert facts["accepted"] == ["b@y.example"]
    assert facts["rejected"] == {"gone@y.example": "550 5.1.1 nobody"}


def test_a_failed_send_is_1_and_json_says_whether_it_may_be_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ScriptedServer(final_replies="451 4.3.0 later") as server:
        code, out, _ = run(capsys, "send", url(server), *ADDRESSES, "--json")
        assert code == 1
        facts = json.loads(out)
        assert (facts["error"], facts["transient"], facts["outcome_unknown"]) == (
            "MessageRefused",
            True,
            False,
        )
        code, _, err = run(capsys, "send", url(server), *ADDRESSES)
    assert code == 1
    assert "451 4.3.0 later" in err


def test_the_dialogue_is_shown_with_secrets_masked(capfd: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(users={"u": "hunter2"}, auth=["PLAIN"]) as server:
        main(["verify", url(server, "u:hunter2@"), "--option", "logger=shop.mail", "--debug"])
    err = capfd.readouterr().err
    assert "C: EHLO" in err
    assert "AUTH PLAIN ***" in err
    assert "AHUAaHVudGVyMg" not in err


def test_options_beside_the_url(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(users={"u": "p"}) as server:
        options = ("username=u", "password=wrong", "password=p", "pool=no", "pool.enabled=no")
        named = [word for option in options for word in ("--option", option)]
        code, out, _ = run(capsys, "verify", url(server), *named)
    assert (code, "auth       ok" in out) == (0, True)
    code, _, err = run(capsys, "verify", "smtp://x/", "--option", "oauth2.tls.ca_fil=x")
    assert (code, "oauth2.tls.ca_fil" in err) == (2, True)


def test_the_time_limit(capsys: pytest.CaptureFixture[str]) -> None:
    from mailbridge.testing import Fault

    with ScriptedServer(faults=[Fault("greeting", "silence")]) as server:
        code, out, _ = run(capsys, "verify", url(server), "--timeout", "0.2")
    assert code == 1
    assert "greeting   failed" in out


def test_several_servers_are_verified_each(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer() as one, ScriptedServer() as other:
        other.refuse()
        code, out, _ = run(capsys, "verify", url(one), url(other))
        assert code == 1
        assert out.count("config     ok") == 2
        assert (
            out.index(f"127.0.0.1:{one.port}") < out.index("greeting   ok") < out.index("tcp        failed")
        )
        assert f"127.0.0.1:{one.port}, 127.0.0.1:{other.port}: 1 stage(s) failed" in out
        _, out, _ = run(capsys, "verify", "--json", url(one), url(other))
        assert [report["ok"] for report in json.loads(out)["servers"]] == [True, False]


def test_the_next_server_gets_what_the_first_fails_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    who = ("--from", "a@x.example", "--to", "b@y.example")
    with ScriptedServer() as one, ScriptedServer() as other:
        one.refuse()
        code, out, _ = run(capsys, "send", url(one), url(other), *who)
        assert code == 0
        assert f"not taken: Connection refused by 127.0.0.1:{one.port}" in out
        assert f"127.0.0.1:{other.port} took" in out
        monkeypatch.setenv("MAILBRIDGE_URL", f"{url(one)} {url(other)}")
        code, out, _ = run(capsys, "send", "--json", *who)
        assert list(json.loads(out)["failed_servers"]) == [f"127.0.0.1:{one.port}"]
        assert len(other.messages) == 2
