"""What sending costs in memory: nothing that stays, little at its peak, and a bounded registry.

Each program runs in a process of its own, beside the server's: what is measured is mailbridge and what it
calls. Python counts the blocks that it has allocated, the resident size shows also those of OpenSSL and the
C library.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from mailbridge.registry import MOST_MAILERS
from tests.acceptance.measured import COMMON
from tests.servers.certificates import Certificates
from tests.servers.fixtures import StartSmtpSink
from tests.servers.postfix import Postfix
from tests.servers.process import free_port

# Blocks of memory (objects, roughly) that all sends of a test together may leave behind.
MOST_BLOCKS = 100
# Of the process as a whole, whose allocator keeps pages in reserve.
MOST_RESIDENT_BYTES = 4_000_000

GROWTH = """
mailer = Mailer(configuration())
def work(count):
    for number in range(count):
        try:
            mailer.send(message(number))
            outcome = "sent"
        except MailbridgeError as error:
            assert str(error)
            outcome = type(error).__name__
        assert outcome == {outcome!r}, outcome
work({warm_up})
before, resident_before = blocks(), resident()
work({count})
tell(blocks=blocks() - before, resident=resident() - resident_before, opened=mailer.stats().opened_total)
"""


def told_by(program: str, **options: Any) -> dict[str, Any]:
    """What a program that sends, with these options, says of itself."""
    command = [sys.executable, "-I", "-W", "error", "-c", COMMON + textwrap.dedent(program)]
    done = subprocess.run(
        [*command, json.dumps(options, default=str)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def check_growth(told: dict[str, Any]) -> None:
    assert told["blocks"] < MOST_BLOCKS, told
    assert told["resident"] < MOST_RESIDENT_BYTES, told


def grown(outcome: str, *, count: int, **options: Any) -> dict[str, Any]:
    return told_by(GROWTH.format(outcome=outcome, warm_up=100, count=count), **options)


class TestGrowth:
    """The same again and again, after a warm-up."""

    def test_sent_five_hundred_times(self, smtp_sink: StartSmtpSink) -> None:
        told = grown("sent", count=500, port=smtp_sink().port)
        assert told["opened"] == 6  # worn after a hundred
        check_growth(told)

    @pytest.mark.parametrize(
        ("outcome", "options"),
        [
            ("RecipientsRefused", ("-f", "RCPT")),
            ("ConnectionLost", ("-q", "DATA")),
            ("ConnectionLost", ("-q", ".")),
            ("GreetingRefused", ("-f", "CONNECT")),
        ],
    )
    def test_failed(self, smtp_sink: StartSmtpSink, outcome: str, options: tuple[str, ...]) -> None:
        check_growth(grown(outcome, count=200, port=smtp_sink(*options).port))

    def test_no_server(self) -> None:
        check_growth(grown("NobodyListens", count=200, port=free_port().port))

    @pytest.mark.parametrize("outcome", ["sent", "CertificateRejected"])
    def test_tls_with_a_connection_each(
        self, postfix: Postfix, certificates: Certificates, outcome: str
    ) -> None:
        trusted = certificates.ca_file if outcome == "sent" else certificates.other_ca_file
        tls = {"tls": {"ca_file": trusted}, "security": "starttls"}
        check_growth(grown(outcome, count=150, port=postfix.plain.port, pool=False, **tls))


PEAK = """
{make}
mailer = Mailer(configuration())
mailer.send(message())
mail = make()
tracemalloc.start()
result = mailer.send(mail, envelope=ENVELOPE)
left, peak = tracemalloc.get_traced_memory()
tell(size=result.message_size, peak=peak, left=left)
"""
# What the send takes at its peak beside the caller's own message, in sizes of the message as it is sent. The
# promise is three; most need little more than the one copy that goes out.
MAKE = {
    "bytes": (
        0.5,
        """
        def make():
            return b"Subject: x\\r\\n\\r\\n" + (b"x" * 76 + b"\\r\\n") * (10_000_000 // 78)
        """,
    ),
    "bytes with dots": (
        1.5,
        """
        def make():
            return b"Subject: x\\r\\n\\r\\n" + (b"." + b"x" * 75 + b"\\r\\n") * (10_000_000 // 78)
        """,
    ),
    "bytes with bare line feeds": (
        2.5,
        """
        def make():
            return b"Subject: x\\n\\n" + (b"x" * 76 + b"\\n") * (10_000_000 // 77)
        """,
    ),
    "EmailMessage with an attachment": (
        1.5,
        """
        def make():
            mail = message()
            mail.add_attachment(os.urandom(7_500_000), maintype="application", subtype="octet-stream")
            return mail
        """,
    ),
    "EmailMessage with a long text": (
        1.5,
        """
        def make():
            mail = message()
            mail.set_payload(("x" * 70 + "\\n") * (10_000_000 // 71))
            return mail
        """,
    ),
    "EmailMessage with a long text in 8 bit": (
        1.5,
        """
        def make():
            mail = message()
            mail.set_content("ü", cte="8bit")
            line = ("ü" * 35 + "\\n").encode().decode("ascii", "surrogateescape")
            mail.set_payload(line * (10_000_000 // 71))
            return mail
        """,
    ),
    "Message with an attachment": (
        2.5,
        """
        def make():
            mail = Message(sender=SENDER, to=[RECIPIENT], subject="x", text="hello")
            mail.attach(os.urandom(7_500_000), filename="x.bin", content_type="application/octet-stream")
            return mail
        """,
    ),
}


class TestPeak:
    @pytest.mark.parametrize(("most", "make"), MAKE.values(), ids=MAKE)
    def test_of_ten_megabytes(self, postfix: Postfix, most: float, make: str) -> None:
        self.check(told_by(PEAK.format(make=textwrap.dedent(make)), port=postfix.plain.port), most)

    def test_over_tls(self, postfix: Postfix, certificates: Certificates) -> None:
        most, make = MAKE["EmailMessage with an attachment"]
        tls = {"tls": {"ca_file": certificates.ca_file}, "security": "starttls"}
        self.check(told_by(PEAK.format(make=textwrap.dedent(make)), port=postfix.plain.port, **tls), most)

    def check(self, told: dict[str, Any], most: float) -> None:
        assert told["size"] > 9_500_000
        assert told["peak"] < most * told["size"], told["peak"] / told["size"]
        assert told["left"] < 100_000, told


REGISTRY = """
from mailbridge.registry import _registry
def work(first, last):
    for number in range(first, last):
        assert mailer_for(configuration(local_hostname=f"client{number}.test")).send(message()).accepted
        if number % 50 == 0:
            gc.collect()  # forgotten mailers are circles: what waits for the collector does not stay
def descriptors():
    return len(os.listdir("/proc/self/fd"))
work(0, 300)
blocks_before, before, open_before = blocks(), resident(), descriptors()
work(300, 1000)
told = {"blocks": blocks() - blocks_before, "resident": resident() - before, "kept": len(_registry)}
told |= {"before": open_before, "opened": descriptors()}
close_all()
tell(closed=descriptors(), **told)
"""


def test_a_registry_of_a_thousand_configurations(smtp_sink: StartSmtpSink) -> None:
    """Each with a session of its own: the least recently used are closed and forgotten."""
    told = told_by(REGISTRY, port=smtp_sink("-m", "1000").port)
    assert told["kept"] == MOST_MAILERS
    assert told["before"] == told["opened"] < MOST_MAILERS + 10, told
    check_growth(told)
    assert told["closed"] < 10, told
