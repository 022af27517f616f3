"""How many Python calls one warm send makes, and in which functions: `python -m benchmarks.calls`.

A call is an event "call" of `sys.setprofile`: a Python function that is entered, or a step of a generator
or coroutine. Functions in C are not counted. The number depends on the version of Python (3.12 and later
inline comprehensions) and on nothing else of the machine, so a test can hold it.

The message has about 2 KB and one recipient, a new one for each send of Django. The server offers PIPELINING,
answers what comes in one segment in one segment, and runs in threads of its own, whose calls are not counted.
Sends before the counted one have imported everything and opened the connection.

With a number, as in `python -m benchmarks.calls 40`, so many functions are listed; with `--json`, only the
totals are printed.
"""

from __future__ import annotations

import gc
import json
import socketserver
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import CodeType, FrameType

import mailbridge
from benchmarks.job import SENDER, SUBJECT, TEXT

ROOT = Path(__file__).resolve().parent.parent
RECIPIENT = "r0@elsewhere.test"
CONTENT = f"From: {SENDER}\r\nTo: {RECIPIENT}\r\nSubject: {SUBJECT}\r\n\r\n{TEXT}\r\n".encode()
EHLO = (
    b"250-mx.test.example\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-ENHANCEDSTATUSCODES\r\n"
    b"250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8\r\n"
)
REPLIES = {b"EHLO": EHLO, b"DATA": b"354 Go on\r\n", b".": b"250 2.0.0 Ok: queued as 3F5C12\r\n"}
DELAY = 0.005  # seconds before an answer: the client waits for it, as it does for any server
WARM_UP = 3  # sends before the one that is counted
MOST_FUNCTIONS = 25

Send = Callable[[], object]


class Calls:
    """The calls of one `act`, by function; those within the function `apart` are counted by themselves."""

    def __init__(self, act: Send, apart: CodeType | None = None) -> None:
        self.by_function: Counter[CodeType] = Counter()
        self.apart = 0
        self._code_apart = apart
        self._frame_apart: FrameType | None = None
        gc.disable()  # finalizers of what was before are not calls of `act`
        sys.setprofile(self._note)
        try:
            act()
        finally:
            sys.setprofile(None)
            gc.enable()
        del self.by_function[act.__code__]  # type: ignore[attr-defined]  # this module's own function

    @property
    def total(self) -> int:
        return self.by_function.total()

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            if self._frame_apart is None and frame.f_code is self._code_apart:
                self._frame_apart = frame
            if self._frame_apart is None:
                self.by_function[frame.f_code] += 1
            else:
                self.apart += 1
        elif event == "return" and frame is self._frame_apart:
            self._frame_apart = None


class Server(socketserver.BaseRequestHandler):
    """Takes every message.

    When its answers come, and in which segments, decides how often the client has to read.
    """

    def handle(self) -> None:
        self.request.sendall(b"220 mx.test.example ESMTP\r\n")
        end, unread = b"\r\n", b""
        while received := self._received():
            unread += received
            time.sleep(DELAY)
            replies = []
            while end in unread:
                line, _, unread = unread.partition(end)
                verb = line[:4] if end == b"\r\n" else b"."
                end = b"\r\n.\r\n" if verb == b"DATA" else b"\r\n"
                replies.append(REPLIES.get(verb, b"250 2.1.0 Ok\r\n"))
            self.request.sendall(b"".join(replies))

    def _received(self) -> bytes:
        try:
            return bytes(self.request.recv(1 << 16))
        except ConnectionResetError:  # the client hung up ahead of the answer to QUIT
            return b""


@contextmanager
def running_server() -> Iterator[dict[str, object]]:
    """The options of mailbridge that lead to the server."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"host": "127.0.0.1", "port": server.server_address[1], "security": "none"}
        mailbridge.close_all()
        server.shutdown()


@contextmanager
def mailer_send() -> Iterator[Send]:
    """`Mailer.send(bytes)`."""
    with running_server() as options:
        config = mailbridge.SMTPConfig.from_mapping(options)
        envelope = mailbridge.Envelope(SENDER, [RECIPIENT])
        with mailbridge.Mailer(config) as mailer:
            yield lambda: mailer.send(CONTENT, envelope=envelope)


@contextmanager
def django_send() -> Iterator[Send]:
    """`EmailMessage.send()` of Django, which makes a backend each time."""
    import django
    from django.conf import settings

    backend = "mailbridge_django.EmailBackend"
    with running_server() as options:
        if django.VERSION >= (6, 1):
            settings.configure(MAILERS={"default": {"BACKEND": backend, "OPTIONS": options}})
        else:
            settings.configure(EMAIL_BACKEND=backend, MAILBRIDGE=options)
        django.setup()
        from django.core.mail import EmailMessage

        # Before Django 6.1 a message keeps the backend that it was sent by: each send has its own message.
        recipients = (f"r{number}@elsewhere.test" for number in count())
        yield lambda: EmailMessage(SUBJECT, TEXT, SENDER, [next(recipients)]).send()


def count_mailer() -> Calls:
    with mailer_send() as send:
        return counted(send)


def count_django() -> Calls:
    with django_send() as send:
        from django.core.mail import EmailMessage

        return counted(send, EmailMessage.message.__code__)


def counted(send: Send, apart: CodeType | None = None) -> Calls:
    for _ in range(WARM_UP):
        send()
    return Calls(send, apart)


def main(arguments: list[str]) -> None:
    mailer, in_django = count_mailer(), count_django()
    totals = {"mailer": mailer.total, "django": in_django.total, "django_message": in_django.apart}
    if arguments == ["--json"]:
        print(json.dumps(totals))
        return
    most = int(arguments[0]) if arguments else MOST_FUNCTIONS
    print(f"Python {sys.version.partition(' ')[0]}, {len(CONTENT)} bytes, one recipient, connection open\n")
    print_calls(f"Mailer.send(bytes): {mailer.total} calls", mailer, most)
    print_calls(
        f"Django's EmailMessage.send(): {in_django.total} calls, and {in_django.apart} in its own message()",
        in_django,
        most,
    )


def print_calls(title: str, calls: Calls, most: int) -> None:
    print(title)
    for code, number in calls.by_function.most_common(most):
        print(f"  {number:>5}  {shown(code)}")
    print()


def shown(code: CodeType) -> str:
    path = Path(code.co_filename)
    within = path.relative_to(ROOT) if path.is_relative_to(ROOT) and ".venv" not in path.parts else path.name
    return f"{code.co_qualname} ({within}:{code.co_firstlineno})"


if __name__ == "__main__":
    main(sys.argv[1:])
