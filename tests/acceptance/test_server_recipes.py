"""The recipes of docs/receiving.md, as they stand there."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mailbridge.server import MailServer, Session
from tests.receiving import MAIL, Caller, mailroom

pytestmark = pytest.mark.needs("aiosmtpd")

TEXT = (Path(__file__).parent.parent.parent / "docs" / "receiving.md").read_text(encoding="utf-8")


def recipe(heading: str) -> dict[str, Any]:
    """What the first example below this heading defines; its server is built, not started."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    code = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[0]
    names: dict[str, Any] = {}
    exec(compile(code, heading, "exec"), names)
    return names


def knock(port: int, address: str) -> str:
    """The greeting for a client behind a proxy."""
    family = "TCP6" if ":" in address else "TCP4"
    proxy = "2001:db8::ffff" if ":" in address else "10.0.0.1"
    header = f"PROXY {family} {address} {proxy} 4000 25\r\n".encode()
    with Caller(port, header) as caller:
        return caller.reply()


def test_the_first_example(capsys: pytest.CaptureFixture[str]) -> None:
    first = TEXT.split("\n## ")[0]
    code = re.findall(r"^```python\n(.*?)^```", first, re.DOTALL | re.MULTILINE)[0]
    assert code.endswith('    print("listening on", server.port)\n')
    names: dict[str, Any] = {"Caller": Caller, "MAIL": MAIL}
    more = (
        "    with Caller(server.port) as caller:\n"
        "        caller.hello().send(MAIL + b'x\\r\\n.\\r\\nQUIT\\r\\n')\n"
        "        codes = caller.codes()\n"
    )
    exec(compile(code + more, "first", "exec"), names)
    assert names["codes"][-2:] == ["250", "221"]
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"listening on {out[0].split()[-1]}"
    assert out[1] == "127.0.0.1 a@b.example ('c@d.example',) 3"


def test_who_may_connect() -> None:
    refuse_blocked = recipe("Recipe: who may connect")["refuse_blocked"]
    with mailroom(use_proxy=["127.0.0.1"], on_connect=refuse_blocked) as room:
        for blocked in ("192.0.2.50", "203.0.113.9", "2001:db8:bad:1::1", "::ffff:203.0.113.9"):
            assert knock(room.port, blocked) == "554 5.7.1 Access denied"
        for welcome in ("192.0.2.51", "203.0.114.1", "2001:db8::1"):
            assert knock(room.port, welcome).startswith("220 ")
        assert {record.remote_address for record in room.wait_for("refuse", 4)} == {
            "192.0.2.50",
            "203.0.113.9",
            "2001:db8:bad:1::1",
        }


def test_how_often() -> None:
    now = [1000.0]
    limit = recipe("Recipe: how often")["RateLimit"](2, 60.0, clock=lambda: now[0])
    with mailroom(use_proxy=["127.0.0.1"], on_connect=limit) as room:
        codes = [knock(room.port, "192.0.2.1")[:3] for _ in range(4)]
        assert codes == ["220", "220", "421", "421"]
        assert knock(room.port, "192.0.2.2").startswith("220 "), "another client of the same proxy"
        assert [knock(room.port, f"2001:db8::{n}")[:3] for n in range(1, 4)] == ["220", "220", "421"]
        assert knock(room.port, "2001:db8:0:1::1").startswith("220 ")
        now[0] += 60.0
        assert knock(room.port, "192.0.2.1").startswith("220 ")


def test_how_often_takes_no_more_memory_than_it_may() -> None:
    limit = recipe("Recipe: how often")["RateLimit"](2, 60.0, most_clients=50)
    for number in range(500):
        address = f"10.0.{number // 256}.{number % 256}"
        limit(Session(id="x", remote_address=address, remote_port=1, local_address="x", local_port=2))
    assert len(limit.recent) == 50


def test_behind_a_load_balancer() -> None:
    server = recipe("Behind a load balancer")["server"]
    assert (server.host, server.port) == ("0.0.0.0", 2525)


def test_every_option_is_in_the_table() -> None:
    parameters = set(inspect.signature(MailServer).parameters) - {"host", "port"}
    section = TEXT.split("\n## Options of MailServer\n")[1].split("\n## ")[0]
    hooks = TEXT.split("\n## Hooks\n")[1].split("\n## ")[0]
    told = set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) | set(
        re.findall(r"^\| `(\w+)\(", hooks, re.MULTILINE)
    )
    assert told == parameters


def test_everything_on_a_session_is_in_the_table() -> None:
    section = TEXT.split("\n## Attributes of a session\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == {field.name for field in fields(Session)}
