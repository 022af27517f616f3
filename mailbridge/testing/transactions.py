"""MAIL, RCPT, DATA or BDAT: the server's side of mail transactions, and the moment a message is committed.

A message is committed before the reply to its dot is sent, so what the journal holds does not depend on the
reply's arriving. A refused DATA leaves the transaction open, as real servers do: MAIL is then answered 503
until RSET.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from mailbridge.testing.content import ContentReader, content_violations, unstuffed
from mailbridge.testing.faults import Fault, as_wire
from mailbridge.testing.options import chosen
from mailbridge.testing.records import ReceivedMessage
from mailbridge.testing.responder import Speaker
from mailbridge.testing.wire import Over

__all__ = ["Transactions"]

_PATH = re.compile(rb'(?:FROM|TO):<((?:"(?:[^"\\]|\\.)*"|[^">])*)>(?: (.*))?\Z', re.DOTALL | re.IGNORECASE)
_PARAMETER_NEEDS = {
    **dict.fromkeys(("RET", "ENVID", "NOTIFY", "ORCPT"), "DSN"),
    **dict.fromkeys(("HOLDFOR", "HOLDUNTIL"), "FUTURERELEASE"),
    "BODY": "8BITMIME",
    "BY": "DELIVERBY",
}


@dataclass(kw_only=True)
class _Transaction:
    sender: str
    parameters: tuple[str, ...]
    recipients: list[str] = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)  # by BDAT
    chunks: list[int] = field(default_factory=list)
    content_fault: Fault | None = None
    is_chunk_refused: bool = False

    @property
    def is_binary(self) -> bool:
        return "BODY=BINARYMIME" in (parameter.upper() for parameter in self.parameters)


class Transactions:
    """The transactions of one session, one at a time."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._behaviour = speaker.behaviour
        self._current: _Transaction | None = None

    @property
    def is_open(self) -> bool:
        """Whether MAIL was accepted and neither content nor a reset came since."""
        return self._current is not None

    def drop(self) -> None:
        """Forget the transaction under way."""
        self._current = None

    def mail(self, rest: bytes) -> None:
        parsed = self._parse(b"FROM:", rest)
        if isinstance(parsed, str):
            self._speaker.answer("mail", parsed)
            return
        sender, parameters = parsed
        reply = chosen(self._behaviour.mail_replies, sender, sender) or self._mail_reply(parameters)
        if self._speaker.answer("mail", reply) == "2":
            self._current = _Transaction(sender=sender, parameters=parameters)

    def _mail_reply(self, parameters: tuple[str, ...]) -> str:
        if self._current is not None:
            return self._speaker.reply(503, "5.5.1", "Nested MAIL command")
        limit = self._behaviour.max_size
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.upper() == "SIZE" and value.isdigit() and limit is not None and int(value) > limit:
                return self._speaker.reply(552, "5.3.4", "Message size exceeds fixed limit")
        return self._speaker.reply(250, "2.1.0", "Ok")

    def _parse(self, prefix: bytes, rest: bytes) -> tuple[str, tuple[str, ...]] | str:
        """Address and parameters, or the reply to an error."""
        found = _PATH.match(rest)
        if found is None or not rest.upper().startswith(prefix):
            self._speaker.violate(f"malformed path: {rest[:80]!r}")
            return self._speaker.reply(501, "5.5.4", "Syntax error in parameters")
        address, text = (part.decode("utf-8", "surrogateescape") for part in (found[1], found[2] or b""))
        parameters = tuple(text.split(" ")) if text else ()
        for parameter in parameters:
            name = parameter.partition("=")[0].upper()
            is_binary = parameter.upper() == "BODY=BINARYMIME"
            if ("BINARYMIME" if is_binary else _PARAMETER_NEEDS.get(name, name)) not in self._speaker.offered:
                self._speaker.violate(f"parameter {parameter!r} of an extension that was not offered")
                return self._speaker.reply(555, "5.5.4", "Parameter not recognised")
        return address, parameters

    def rcpt(self, rest: bytes) -> None:
        parsed = self._parse(b"TO:", rest)
        if isinstance(parsed, str):
            self._speaker.answer("rcpt", parsed)
        elif self._current is None:
            self._speaker.answer("rcpt", self._speaker.reply(503, "5.5.1", "MAIL first"))
        else:
            recipient, limit = parsed[0], self._behaviour.max_recipients
            reply = chosen(self._behaviour.rcpt_replies, recipient, recipient)
            if reply is None and limit is not None and len(self._current.recipients) >= limit:
                reply = self._speaker.reply(452, "4.5.3", "Too many recipients")
            if self._speaker.answer("rcpt", reply or self._speaker.reply(250, "2.1.5", "Ok")) == "2":
                self._current.recipients.append(recipient)

    def data(self, rest: bytes) -> None:
        if self._speaker.answer("data", self._data_reply()) == "3":
            # Told to go on, the client does, even where the 354 was the test's and nothing is behind it.
            self._read_content(self._current or _Transaction(sender="", parameters=()))

    def _data_reply(self) -> str | bytes:
        if self._current is None:
            return self._speaker.reply(503, "5.5.1", "MAIL first")
        sender = self._current.sender
        if (reply := chosen(self._behaviour.data_reply, sender, sender)) is not None:
            return reply
        if not self._current.recipients:
            return self._speaker.reply(503 if self._behaviour.lmtp else 554, "5.5.1", "No valid recipients")
        if self._current.is_binary or self._current.chunks:  # RFC 3030 sections 2 and 3
            self._speaker.violate("DATA for content that is binary or has begun with BDAT")
            return self._speaker.reply(503, "5.5.1", "BDAT was expected")
        return "354 End data with <CR><LF>.<CR><LF>"

    def _read_content(self, transaction: _Transaction) -> None:
        channel, reader, fault = self._speaker.channel, ContentReader(), self._speaker.due("content")
        is_answered, rest = False, None
        while rest is None:
            if fault is not None and len(reader.raw) >= fault.after:
                is_answered = self._spoil_content(fault)
                fault = None
            if not channel.has_input:
                channel.fill()
            left = None if fault is None else fault.after - len(reader.raw)
            rest = reader.feed(channel.take_input(left))
        if rest and "PIPELINING" not in self._speaker.offered:
            self._speaker.violate("bytes sent before the reply to the final dot")
        channel.put_back(rest)
        self.drop()
        if not is_answered:
            self._finish(self._received(transaction, bytes(reader.raw)))

    def bdat(self, rest: bytes) -> None:
        """A chunk (RFC 3030 section 2). Its bytes are read whatever becomes of them."""
        found = re.fullmatch(rb"([0-9]{1,20})( LAST)?", rest, re.IGNORECASE)
        if found is None or "CHUNKING" not in self._speaker.offered:
            self._speaker.violate(f"BDAT that was not offered, or makes no sense: {rest[:80]!r}")
            self._speaker.answer("chunk", self._speaker.reply(501, "5.5.4", "No such BDAT"))
            raise Over("server")
        transaction = self._current or _Transaction(sender="", parameters=())
        if not transaction.chunks:
            transaction.content_fault = self._speaker.due("content")
        is_answered = self._read_chunk(transaction, int(found[1]))
        transaction.chunks.append(int(found[1]))
        if self._speaker.channel.has_input and "PIPELINING" not in self._speaker.offered:
            self._speaker.violate("bytes sent before the reply to a chunk")
        if is_answered:
            transaction.is_chunk_refused = True
        elif found[2] is None or not self._may_finish(transaction):
            said = self._speaker.answer("chunk", self._chunk_reply(transaction))
            transaction.is_chunk_refused |= said in ("4", "5")
        else:
            self.drop()
            self._finish(self._received(transaction, bytes(transaction.content), is_stuffed=False))

    def _read_chunk(self, transaction: _Transaction, size: int) -> bool:
        """Whether the client has an answer already."""
        channel, content = self._speaker.channel, transaction.content
        end, is_answered = len(content) + size, False
        while True:
            fault = transaction.content_fault
            if fault is not None and len(content) >= fault.after:
                transaction.content_fault = None
                is_answered = self._spoil_content(fault)
            if len(content) == end:
                return is_answered
            if not channel.has_input:
                channel.fill()
            content += channel.take_input(end - len(content))

    def _may_finish(self, transaction: _Transaction) -> bool:
        return bool(transaction.recipients) and not transaction.is_chunk_refused

    def _chunk_reply(self, transaction: _Transaction) -> str:
        if not self._may_finish(transaction):
            return self._speaker.reply(503, "5.5.1", "No valid recipients, or a chunk was refused before")
        if self._behaviour.max_size is not None and len(transaction.content) > self._behaviour.max_size:
            return self._speaker.reply(552, "5.3.4", "Message size exceeds fixed limit")
        return self._speaker.reply(250, "2.0.0", f"{transaction.chunks[-1]} octets received")

    def _spoil_content(self, fault: Fault) -> bool:
        """Whether the client has an answer now, so that none is due behind the dot."""
        regular = (
            b"" if fault.kind == "late" else as_wire(self._speaker.reply(552, "5.3.4", "Message too big"))
        )
        self._speaker.perform(fault, regular)
        return fault.kind != "late"

    def _received(self, transaction: _Transaction, raw: bytes, *, is_stuffed: bool = True) -> ReceivedMessage:
        names = {parameter.upper() for parameter in transaction.parameters}
        may_be_8bit = bool(names & {"BODY=8BITMIME", "SMTPUTF8"})
        if not transaction.is_binary:
            for violation in content_violations(raw, may_be_8bit=may_be_8bit, is_stuffed=is_stuffed):
                self._speaker.violate(violation)
        return ReceivedMessage(
            sender=transaction.sender,
            recipients=tuple(transaction.recipients),
            content=unstuffed(raw) if is_stuffed else raw,
            raw=raw,
            connection=self._speaker.record.number,
            mail_parameters=transaction.parameters,
            chunks=tuple(transaction.chunks),
        )

    def _finish(self, message: ReceivedMessage) -> None:
        if self._behaviour.lmtp:
            for recipient in message.recipients:
                self._conclude(replace(message, recipients=(recipient,)), recipient)
        else:
            self._conclude(message, message.sender)
        if (idle := self._speaker.due("idle")) is not None:
            self._speaker.perform(idle, as_wire(self._speaker.reply(421, "4.4.2", "Idle for too long")))

    def _conclude(self, message: ReceivedMessage, address: str) -> None:
        regular, fault = as_wire(self._final_reply(message, address)), self._speaker.due("final")
        if _is_committed(regular, fault):
            with self._speaker.journal.change():
                self._speaker.journal.messages.append(message)
        self._speaker.speak(fault, regular)

    def _final_reply(self, message: ReceivedMessage, address: str) -> str | bytes:
        limit = self._behaviour.max_size
        reply = chosen(self._behaviour.final_replies, address, message)
        if reply is not None:
            return reply
        if not message.recipients:
            return self._speaker.reply(554, "5.5.1", "No valid recipients")
        if limit is not None and len(message.content) > limit:
            return self._speaker.reply(552, "5.3.4", "Message size exceeds fixed limit")
        # Connection and command number together name the message.
        queued = f"{message.connection:04d}{len(self._speaker.record.commands):05d}"
        return self._speaker.reply(250, "2.0.0", f"Ok: queued as {queued}")


def _is_committed(regular: bytes, fault: Fault | None) -> bool:
    """Whether the server takes the message: as the fault says, else as the answer that goes out says."""
    if fault is not None and fault.commit is not None:
        return fault.commit
    if fault is None or fault.keeps_reply:
        return regular.startswith(b"2")
    return fault.kind == "reply" and as_wire(fault.reply or b"").startswith(b"2")
