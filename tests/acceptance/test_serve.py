"""`mailbridge serve`, as it is typed: what it prints is enough to send to it and to look at what came."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mailbridge import AuthenticationFailed, Mailer, Message, SendResult, SMTPConfig

pytestmark = [pytest.mark.needs("aiosmtpd"), pytest.mark.needs("flask")]

SECONDS = 20
MESSAGE = Message("Größe", "shop@example.com", ["maja@example.org"], text="Good day")


class Served:
    """A running command. `said` is what it has printed so far, up to "Stop with Ctrl-C."."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "mailbridge", "serve", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        )
        assert self.process.stdout is not None
        lines = iter(self.process.stdout.readline, "")
        self.said = ""
        for line in lines:
            self.said += line
            if line.startswith("Stop"):
                break
        else:
            raise AssertionError(self.process.communicate(timeout=SECONDS)[1])

    @property
    def url(self) -> str:
        found = re.search(r"configure +(\S+)", self.said)
        assert found is not None
        return found[1]

    @property
    def trust(self) -> dict[str, str]:
        """What the option tls has to be."""
        found = re.search(r"trust +tls\.ca_file=(\S+)", self.said)
        return {} if found is None else {"ca_file": found[1]}

    @property
    def page(self) -> str:
        found = re.search(r"look at it +(\S+)", self.said)
        assert found is not None
        return found[1]

    def next_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(SECONDS)
        finally:
            self.close()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=SECONDS)


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(*arguments: str, **environment: str) -> Served:
            served = Served(*arguments, **environment)
            stack.callback(served.close)
            return served

        yield start


def send(served: Served, login: str = "", query: str = "") -> SendResult:
    url = served.url.replace("USER:PASSWORD", login) + query
    with Mailer(SMTPConfig.from_url(url, tls=served.trust)) as mailer:
        return mailer.send(MESSAGE)


def get(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        found = json.load(answer)
    assert isinstance(found, dict)
    return found


def test_what_it_prints_is_enough(serve: Serve) -> None:
    served = serve("--http", "0")
    assert send(served).accepted == ("maja@example.org",)
    assert re.fullmatch(r"\d\d:\d\d:\d\d  maja@example.org  Größe\n", served.next_line())
    mail = get(f"{served.page}api/messages/wait?to=maja@example.org")
    assert (mail["subject"], mail["text"]) == ("Größe", "Good day\n")


def test_with_tls_and_a_login(serve: Serve) -> None:
    served = serve("--tls", "--auth", "shop:open sesame", "--http", "0")
    send(served, "shop:open%20sesame")
    mail = get(f"{served.page}api/messages/wait")
    assert (mail["is_encrypted"], mail["user"]) == (True, "shop")
    with pytest.raises(AuthenticationFailed):
        send(served, "shop:wrong")
    assert "sesame" not in served.said


def test_implicit_tls(serve: Serve) -> None:
    served = serve("--implicit-tls")
    assert served.url.startswith("smtps://")
    send(served)
    assert "maja@example.org" in served.next_line()


def test_users_come_from_the_environment_too(serve: Serve) -> None:
    served = serve(MAILBRIDGE_SERVE_AUTH="shop:secret other:word")
    send(served, "other:word")
    assert "maja@example.org" in served.next_line()


def test_mails_are_kept_in_a_maildir(serve: Serve, tmp_path: Path) -> None:
    served = serve("--maildir", str(tmp_path / "box"))
    send(served)
    served.next_line()
    (file,) = (tmp_path / "box" / "new").iterdir()
    assert b"Return-Path: <shop@example.com>\n" in file.read_bytes()
    assert served.stop() == 0
    again = serve("--maildir", str(tmp_path / "box"), "--http", "0")
    assert get(f"{again.page}api/messages")["total"] == 1


def test_a_proxy_header_is_believed_of_whom_was_named(serve: Serve) -> None:
    served = serve("--use-proxy", "127.0.0.0/8", "--http", "0")
    send(served, query="&proxy_protocol=2")
    assert str(get(f"{served.page}api/messages/wait")["client"]).startswith("127.0.0.1:")


@pytest.mark.matrix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_told(serve: Serve, number: int) -> None:
    served = serve("--http", "0", "--tls")
    send(served)
    assert served.stop(number) == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_subject_that_the_terminal_cannot_show_ends_nothing(serve: Serve, encoding: str) -> None:
    served = serve(PYTHONIOENCODING=encoding)
    message = Message("日本", "shop@example.com", ["maja@example.org"], text="Good day")
    with Mailer(SMTPConfig(url=served.url)) as mailer:
        mailer.send(message)
        assert served.next_line().rstrip().endswith(r"maja@example.org  \u65e5\u672c")
        mailer.send(MESSAGE)
        assert "maja@example.org" in served.next_line()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--auth", "nobody"], "--auth takes USER:PASSWORD"),
        (["--use-proxy", "nonsense"], "use_proxy"),
        (["--cert", "/nowhere.pem"], "/nowhere.pem"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
    ],
)
def test_wrong_usage(arguments: list[str], complaint: str) -> None:
    command = [sys.executable, "-m", "mailbridge", "serve", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken(serve: Serve) -> None:
    served = serve()
    port = served.url.rpartition(":")[2].partition("/")[0]
    command = [sys.executable, "-m", "mailbridge", "serve", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert port in done.stderr
    assert "Traceback" not in done.stderr
