"""The examples of docs/connection.md do what it says: only the server is replaced, by one that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailbridge.testing import ScriptedServer

TEXT = (Path(__file__).parent.parent.parent / "docs" / "connection.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def run(example: str, server: ScriptedServer) -> None:
    there = f'host="{server.host}", port={server.port}, security="none"'
    code = example.replace('host="smtp.example.com"', there)
    code = code.replace("lmtp://store.example.com", f"lmtp://{server.host}:{server.port}/?security=none")
    assert code != example
    exec(compile(code, "connection.md", "exec"), {})


def test_there_are_as_many_as_are_tried_here() -> None:
    assert len(EXAMPLES) == 3


def test_step_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(users={"user": "secret"}) as server:
        run(EXAMPLES[0], server)
        assert server.connections[0].verbs[-3:] == ("RSET", "NOOP", "QUIT")
        assert server.messages[0].content.endswith(b"\r\n\r\nHello from SMTPConnection!\r\n")
    assert "('recipient@example.com',) 250 2.0.0 Ok" in capsys.readouterr().out


def test_refused_step_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(users={"user": "secret"}, rcpt_replies="550 5.1.1 nobody") as server:
        run(EXAMPLES[0], server)
    assert "for nobody: {'recipient@example.com'" in capsys.readouterr().out


def test_as_a_context_manager() -> None:
    with ScriptedServer(users={"user": "secret"}) as server:
        run(EXAMPLES[1], server)
        assert server.messages[0].recipients == ("recipient@example.com",)
        server.wait_for(lambda: server.connections[0].is_closed)
        assert server.connections[0].verbs[-1] == "QUIT"


def test_lmtp(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(lmtp=True, final_replies={"c@example.com": "452 4.2.2 full"}) as server:
        run(EXAMPLES[2], server)
    assert "('b@example.com',) {'c@example.com'" in capsys.readouterr().out
