r"""Exact dialogues: a script that reads like the dialogue, and its performance on one connection.

S: 220 hi           the server sends this line; lines that follow each other go out in one segment S- 250 par
the server sends these bytes, without CRLF C: EHLO .*          the client must send this line: the very text,
or a regular expression that matches all of it C= MAIL FROM:<a+b>  the client must send this very line C: ...
any number of client lines, up to the one that the next C expects ! tls               shake hands as the
server ! commit            count the message as committed now, without a word ! pause 0.05        wait, in
seconds ! eof               the client must close here ! close             or any other kind of fault, with
its reply behind it where it takes one: ! extra 250 2.1.0 Ok # remark

A 354 starts content, which the client's lines up to "." are; a 2yz behind it commits the message. After the
last step the client must close without another word; after QUIT the server does. Nothing here understands
SMTP any further.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Literal, get_args

from mailbridge.testing.content import unstuffed
from mailbridge.testing.fault_actions import perform
from mailbridge.testing.faults import Fault, Kind
from mailbridge.testing.records import Connection, Journal, ReceivedMessage
from mailbridge.testing.wire import Channel, Over

__all__ = ["Dialogue", "Performance"]

Feed = Literal["whole", "line", "byte"]

_MARKER = r"(?:S:|S-|C:|C=|!|\#)"
_NEXT_STEP = re.compile(rf"\r?\n(?=[ \t]*{_MARKER})")
_STEP = re.compile(rf"\s*({_MARKER}) ?(.*)\Z".encode(), re.DOTALL)
_OWN_ACTIONS = ("tls", "commit", "pause", "eof")
# Gives each piece a fair chance of a segment of its own; nothing depends on it.
_PIECE_INTERVAL = 0.001


@dataclass(frozen=True, slots=True)
class Step:
    marker: str
    data: bytes

    def __str__(self) -> str:
        return f"{self.marker} {_shown(self.data)}"

    def is_met_by(self, line: bytes) -> bool:
        """Whether the client may say `line` where this step expects something."""
        if line == self.data:
            return True
        try:
            return self.marker == "C:" and re.fullmatch(self.data, line) is not None
        except re.error:
            return False  # meant literally

    @property
    def is_skip(self) -> bool:
        return self.marker == "C:" and self.data == b"..."


class Dialogue:
    """One connection's script. Each argument holds one step or several lines of them; bytes hold one step
    exactly.

    `feed` says how the server's lines travel: "whole" (what is due, in one segment), "line" or "byte". Raises
    ValueError for what is no step.
    """

    def __init__(self, *text: str | bytes, feed: Feed = "whole") -> None:
        if feed not in get_args(Feed):
            raise ValueError(f"unknown feed {feed!r}; known: {', '.join(get_args(Feed))}")
        self.feed = feed
        self.steps = tuple(step for part in text for step in _parsed(part))
        for step, following in zip(self.steps, (*self.steps[1:], None), strict=True):
            if step.is_skip and (following is None or not following.marker.startswith("C")):
                raise ValueError("'C: ...' needs another C step behind it, which says where to stop")

    def __repr__(self) -> str:
        return f"Dialogue({len(self.steps)} steps, feed={self.feed!r})"


def _parsed(text: str | bytes) -> list[Step]:
    if isinstance(text, bytes):
        pieces = [text]
    else:
        pieces = [_without_end_of_block(piece).encode() for piece in _NEXT_STEP.split(text)]
    steps = []
    for piece in pieces:
        found = _STEP.match(piece)
        if found is None and piece.strip():
            raise ValueError(f"not a step of a dialogue: {piece!r}; steps begin with S: S- C: C= ! or #")
        if found is not None and found[1] != b"#":
            steps.append(Step(found[1].decode(), found[2]))
    for step in steps:
        _check(step)
    return steps


def _without_end_of_block(piece: str) -> str:
    """`piece` without the line ends, and the blanks behind them, that it ends in."""
    kept = piece.rstrip(" \t\r\n")
    rest, line_end, _ = piece[len(kept) :].partition("\n")
    return kept + rest.removesuffix("\r") if line_end else piece


def _check(step: Step) -> None:
    word = step.data.decode("latin-1").partition(" ")[0]
    if step.marker != "!" or word in _OWN_ACTIONS:
        return
    if word not in get_args(Kind):
        raise ValueError(f"unknown action {word!r}; known: {', '.join((*_OWN_ACTIONS, *get_args(Kind)))}")
    _fault(step)  # says what it lacks


def _fault(step: Step) -> Fault:
    word, _, rest = step.data.partition(b" ")
    kind: Kind = word.decode()  # type: ignore[assignment]  # Fault itself checks it
    return Fault("script", kind, reply=rest.decode("utf-8", "surrogateescape") or None)


class Performance:
    """One dialogue on one connection. Sees itself what it commits; a surprise is a failure in the journal."""

    def __init__(
        self,
        dialogue: Dialogue,
        channel: Channel,
        record: Connection,
        journal: Journal,
        context: ssl.SSLContext | None,
    ) -> None:
        self._dialogue, self._channel, self._record, self._journal = dialogue, channel, record, journal
        self._context = context
        self._so_far: list[str] = []
        self._position = 0
        self._is_settled = False
        self._content: bytearray | None = None
        self._sender, self._recipients = "", list[str]()

    def run(self) -> None:
        """Play the dialogue to its end; always ends in Over."""
        try:
            for position, step in enumerate(self._dialogue.steps):
                self._position = position
                self._play(step)
            self._settle()
            if any(line.upper() == b"QUIT" for line in self._record.commands[-1:]):
                raise Over("server", "goodbye")
            self._expect_end()
        except Over as over:
            if not self._is_settled and over.by != "fault":
                self._fail(f"the connection ended (closed by {over.by})", "nothing any more")
            self._settle()
            raise

    def _play(self, step: Step) -> None:
        match step.marker:
            case "S:" | "S-":
                self._say(step)
            case "C:" | "C=":
                self._hear(step)
            case _:
                self._so_far.append(str(step))
                self._act(step)

    # -- speaking ---------------------------------------------------------------------------------------

    def _say(self, step: Step) -> None:
        data = step.data + (b"\r\n" if step.marker == "S:" else b"")
        self._so_far.append(str(step))
        said = data.lstrip(b"\r\n")  # a test may put empty lines ahead
        if said.startswith(b"2") and self._is_content_complete:
            self._commit()
        if self._dialogue.feed == "whole":
            self._channel.write(data)
        else:
            pieces = (
                data.splitlines(True) if self._dialogue.feed == "line" else [bytes([byte]) for byte in data]
            )
            for piece in pieces:
                self._channel.send(piece)
                self._channel.pause(_PIECE_INTERVAL)
        if said.startswith(b"354"):
            self._content = bytearray()

    def _act(self, step: Step) -> None:
        word, _, rest = step.data.decode("latin-1").partition(" ")
        match word:
            case "tls":
                if self._context is None:
                    raise ValueError("'! tls' needs a server with a certificate")
                self._channel.flush()
                self._channel.start_tls(self._context)
            case "commit":
                self._commit()
            case "pause":
                self._channel.flush()
                self._channel.pause(float(rest))
            case "eof":
                self._settle()
                self._expect_end()
            case _:
                fault = _fault(step)
                if self._position == len(self._dialogue.steps) - 1:
                    self._settle()  # nothing else is expected of the client
                perform(fault, self._channel, b"250 Ok\r\n")

    # -- listening --------------------------------------------------------------------------------------

    def _hear(self, step: Step) -> None:
        if step.is_skip:
            following = self._dialogue.steps[self._position + 1]
            while not following.is_met_by(line := self._next_line()):
                self._so_far.append(f"C: {_shown(line)}")
                self._note(line)
            self._channel.put_back(line + b"\r\n")
            return
        line = self._next_line()
        if not step.is_met_by(line):
            self._fail("the client said something else", _shown(line))
            raise Over("server")
        self._so_far.append(f"C: {_shown(line)}")
        self._note(line)

    def _next_line(self) -> bytes:
        raw = self._channel.read_line()
        if not raw.endswith(b"\r\n"):
            self._fail("the client ended a line with a bare LF", _shown(raw))
            raise Over("server")
        return raw[:-2]

    def _expect_end(self) -> None:
        line = self._channel.read_line()
        self._position = len(self._dialogue.steps)
        self._fail("the client said more than the dialogue has", _shown(line))
        raise Over("server")

    # -- what is committed ------------------------------------------------------------------------------

    @property
    def _is_content_complete(self) -> bool:
        return self._content is not None and (
            self._content == b".\r\n" or self._content.endswith(b"\r\n.\r\n")
        )

    def _note(self, line: bytes) -> None:
        if self._content is not None and not self._is_content_complete:
            self._content += line + b"\r\n"
            return
        with self._journal.change():
            self._record.commands.append(line)
        if found := re.match(rb"(?i)MAIL FROM:<(.*?)>", line):
            self._sender, self._recipients = found[1].decode("utf-8", "surrogateescape"), []
            self._content = None
        elif found := re.match(rb"(?i)RCPT TO:<(.*?)>", line):
            self._recipients.append(found[1].decode("utf-8", "surrogateescape"))

    def _commit(self) -> None:
        if not self._is_content_complete:
            raise ValueError("'! commit' stands where no content was read up to its dot")
        raw, self._content = bytes(self._content or b""), None
        message = ReceivedMessage(
            sender=self._sender,
            recipients=tuple(self._recipients),
            content=unstuffed(raw),
            raw=raw,
            connection=self._record.number,
        )
        with self._journal.change():
            self._journal.messages.append(message)

    # -- verdict ----------------------------------------------------------------------------------------

    def _settle(self) -> None:
        if not self._is_settled:
            self._is_settled = True
            with self._journal.change():
                self._journal.unsettled -= 1

    def _fail(self, what: str, got: str) -> None:
        steps = self._dialogue.steps
        expected = str(steps[self._position]) if self._position < len(steps) else "(the end)"
        place = (
            f"connection {self._record.number}, step {min(self._position + 1, len(steps))} of {len(steps)}"
        )
        lines = [f"{place}: {what}", *(f"    {line}" for line in self._so_far)]
        if expected.startswith(("C", "(")):
            lines += [f"  - {expected}    (expected)", f"  + C: {got}    (got)"]
        else:
            lines += [f"  - {expected}    (was next)"]
        self._journal.fail("\n".join(lines))
        self._settle()


def _shown(data: bytes) -> str:
    """Bytes on one line, with what cannot be seen made visible."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
