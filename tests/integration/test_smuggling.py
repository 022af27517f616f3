"""What a server stored is one message with the bytes that were meant, or nothing was sent.

Content of every nasty kind goes over one session, as bytes, as a file in tiny pieces, and as an
EmailMessage. A second message made out of the first would be stored, or would put the session out of step.
"""

from __future__ import annotations

import email
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mailbridge import InvalidMessage, Mailer, render
from mailbridge.rendering import files, sources
from mailbridge.rendering.files import FileContent
from mailbridge.rendering.lines import canonical, has_nul, longest_line
from mailbridge.smtp.flows import content as content_flow
from tests.integration.conftest import StartMailer
from tests.integration.mails import INBOX, SENDER, Mail, new_mail
from tests.servers.dovecot import MAILBOXES, PASSWORD, USERNAME
from tests.servers.storage import StoredMessage

pytestmark = pytest.mark.campaign

COMMANDS = (
    b"MAIL FROM:<evil@evil.test>\r\nRCPT TO:<inbox@lab.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
)
# What some server has taken for the end of a message (CVE-2023-51764, -51765, -51766), or might.
FALSE_ENDS = [
    *(b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r.\n", b"\r\n.\r\n"),
    *(
        b"\r\n\r\n.\r\n",
        b"\n\n.\n\n",
        b"\r\r\n.\r\r\n",
        b"\r\n\n.\r\n",
        b"\r\n.\r\r\n",
        b"\r\n..\r\n",
        b"\n.\n\r",
    ),
    *(b"\r\n. \r\n", b"\r\n.\t\r\n", b"\x0b.\x0b", b"\x0c.\x0c", b"\x85.\x85", "\u2028.\u2028".encode()),
]
WITH_NUL = [b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\0\r\n.\r\n", b"\r\n\0\r\n.\r\n", b"\r\0\n.\r\0\n"]
BDAT = b"\r\n.\r\nBDAT 86 LAST\r\n"  # what follows would be a message, were the commands obeyed
CLASSIC = [b"hello" + end + COMMANDS for end in [*FALSE_ENDS, *WITH_NUL, BDAT, b"\r\n.\r\nQUIT\r\n"]]

TOKENS = [
    *(b"\r", b"\n", b"\r\n", b".", b"..", b"\r\n.\r\n", b"\n.\n", b"\r.\r", b"a", b" ", b"\t", b"From "),
    *(
        "ü".encode(),
        b"\xff",
        b"QUIT\r\n",
        b"RSET\n",
        b"BDAT 1 LAST\r\n",
        COMMANDS,
        b"x" * 998,
        b"\r\n" + b"." * 998,
    ),
]
REFUSED = [b"\0", b"x" * 999, b"." * 1200]  # in bytes and files; also what grows beyond 998 by joining


def bodies() -> st.SearchStrategy[bytes]:
    """One in some holds what is refused: with it everywhere, little would be sent."""
    nice = st.lists(st.sampled_from(TOKENS), max_size=12)
    nasty = st.lists(st.sampled_from([*TOKENS, *REFUSED]), max_size=8)
    return st.one_of(nice, nice, nice, nasty).map(b"".join)


# The first example that hypothesis makes is the simplest one; it is the others that count.
batches = settings(
    max_examples=4,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.large_base_example],
)


@dataclass(slots=True)
class Way:
    """A server, how it is talked to, and how many messages it has got that way."""

    server: Any
    mailer: Mailer
    sent: int = 0

    @property
    def recipient(self) -> str:
        return f"{MAILBOXES[0]}@lab.test" if self.mailer.config.protocol == "lmtp" else INBOX

    def stored(self, **options: int) -> list[StoredMessage]:
        is_mailbox = self.mailer.config.protocol == "lmtp"
        found: list[StoredMessage] = (
            self.server.mailbox(MAILBOXES[0]) if is_mailbox else self.server.messages(**options)
        )
        return found


WAYS = {
    "postfix": ("postfix", "plain", {}),
    "postfix, BDAT": ("postfix", "plain", {"partial": "all-or-none"}),
    "exim": ("exim", "plain", {}),
    "exim, BDAT over TLS": ("exim", "tls", {"partial": "all-or-none", "security": "tls"}),
    "opensmtpd": ("opensmtpd", "plain", {}),
    "dovecot": (
        "dovecot",
        "submission",
        {"security": "starttls", "username": USERNAME, "password": PASSWORD},
    ),
    "dovecot, LMTP": ("dovecot", "lmtp", {"protocol": "lmtp"}),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, mailer: StartMailer) -> Way:
    name, service, options = WAYS[request.param]
    server = request.getfixturevalue(name)
    return Way(server, mailer(getattr(server, service), debug=True, **options))


@contextmanager
def tiny_pieces() -> Iterator[None]:
    """Whatever comes from a file stays in it, and is read and written a few bytes at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "MOST_IN_MEMORY", -1)
        patch.setattr(sources, "PIECE_SIZE", 3)
        patch.setattr(files, "PIECE_SIZE", 3)
        patch.setattr(content_flow, "_LEAST_PIECE", 1)
        yield


def is_mail(content: bytes) -> bool:
    """Whether RFC 5321 and RFC 5322 allow it, said once more by other means."""
    return b"\0" not in content and all(len(line) <= 998 for line in content.split(b"\r\n"))


def sent_as_bytes(mailer: Mailer, mail: Mail, _: Path) -> bytes | None:
    return outcome(mailer, mail.content, mail)


def sent_as_file(mailer: Mailer, mail: Mail, folder: Path) -> bytes | None:
    path = folder / "mail.eml"
    path.write_bytes(mail.content)
    with tiny_pieces():
        if is_mail(canonical(mail.content)):
            assert isinstance(render(path).content, FileContent)
        return outcome(mailer, path, mail)


def sent_as_iterator(mailer: Mailer, mail: Mail, _: Path) -> bytes | None:
    with tiny_pieces():
        return outcome(mailer, (mail.content[at : at + 2] for at in range(0, len(mail.content), 2)), mail)


def outcome(mailer: Mailer, content: Any, mail: Mail) -> bytes | None:
    """What the server must have; None if the message was refused, as it must be then."""
    meant = canonical(mail.content)
    if not is_mail(meant):
        with pytest.raises(InvalidMessage, match="The content holds a"):
            mailer.send(content, envelope=mail.envelope)
        return None
    assert mailer.send(content, envelope=mail.envelope).message_size == len(meant)
    return meant


def sent_as_message(mailer: Mailer, mail: Mail, _: Path) -> bytes:
    """Never refused: what can't go as it is, is encoded."""
    message = EmailMessage()
    message["From"], message["To"], message["Message-ID"] = SENDER, INBOX, mail.message_id
    message["Date"] = "Fri, 20 Nov 2026 10:00:00 +0000"
    message["Content-Type"] = "text/plain; charset=utf-8"
    body = mail.content.partition(b"\r\n\r\n")[2]
    message.set_payload(body.decode("ascii", "surrogateescape"))
    assert mailer.send(message, envelope=mail.envelope).accepted
    meant = render(message).content
    assert isinstance(meant, bytes)
    assert is_mail(meant)
    read: Any = email.message_from_bytes(meant, policy=policy.default).get_payload(decode=True)
    assert canonical(read) == canonical(body)
    return meant


Send = Callable[[Mailer, Mail, Path], bytes | None]
FORMS: tuple[Send, ...] = (sent_as_bytes, sent_as_file, sent_as_iterator, sent_as_message)


def check(way: Way, bodies: list[bytes], folder: Path) -> int:
    """Send all of them in every form; gives how many the server has of it."""
    before = {message.message_id for message in way.stored()}
    meant: dict[str, bytes] = {}
    for body in bodies:
        for send in FORMS:
            mail = new_mail(body, to=[way.recipient])
            content = send(way.mailer, mail, folder)
            if content is not None:
                meant[mail.message_id] = content
    last = new_mail(to=[way.recipient])
    meant[last.message_id] = last.content
    last.send(way.mailer)
    # OpenSMTPD passes on a little later.
    wait = {"at_least": len(before) + len(meant)} if way.server.name == "opensmtpd" else {}
    stored = [message for message in way.stored(**wait) if message.message_id not in before]
    assert {message.message_id: message.content for message in stored} == meant
    assert len(stored) == len(meant)
    way.sent += len(meant)
    sessions = -(-way.sent // way.mailer.config.pool.max_messages)
    assert way.mailer.stats().opened_total == sessions  # none got out of step
    return len(meant)


def test_sequences_that_were_smuggled_through_others(
    way: Way, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those with a NUL are refused, but as a message."""
    with caplog.at_level(logging.DEBUG, "mailbridge"):
        count = check(way, CLASSIC, tmp_path)
    assert ("BDAT" in caplog.text) == (way.mailer.config.partial == "all-or-none")
    assert count == len(CLASSIC) * len(FORMS) - len(WITH_NUL) * 3 + 1


@batches
@given(batch=st.lists(bodies(), min_size=12, max_size=12))
def test_whatever_hypothesis_thinks_of(way: Way, batch: list[bytes], tmp_path: Path) -> None:
    check(way, batch[:3] if way.server.name == "opensmtpd" else batch, tmp_path)  # its queue is slow


def test_the_judges_agree() -> None:
    """`is_mail` above, and what mailbridge itself goes by."""
    for body in [*CLASSIC, *TOKENS, *REFUSED]:
        content = canonical(body)
        assert is_mail(content) == (not has_nul(content) and longest_line(content) <= 998)
