"""A small, well-behaved and strict SMTP server for one connection, with faults injected where the plan says
so.

It follows RFC 5321 and the extensions it offers, and records what a client must not do as violations. It does
not listen (server.py), does not carry out faults (faults.py) and leaves mail transactions to transactions.py.
"""

from __future__ import annotations

import base64
import binascii

from mailbridge.testing.faults import Fault
from mailbridge.testing.responder import Speaker
from mailbridge.testing.sasl import EXCHANGES, Exchange
from mailbridge.testing.transactions import Transactions
from mailbridge.testing.wire import Over

__all__ = ["Session"]

# RFC 2920 section 3.1; RFC 4954 section 4 and RFC 3207 section 4 say the same of AUTH and STARTTLS.
_ENDS_A_GROUP = frozenset(
    {"EHLO", "HELO", "LHLO", "DATA", "VRFY", "EXPN", "QUIT", "NOOP", "AUTH", "STARTTLS"}
)
# Bytes: RFC 5321 section 4.5.3.1.4, with room for what extensions add; AUTH has none (RFC 4954 section 4).
_MAX_COMMAND = 2048
_MAX_AUTH = 512


class Session:
    """Runs one connection until `Over`."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._behaviour = speaker.behaviour
        self._channel = speaker.channel
        self._record = speaker.record
        self._transactions = Transactions(speaker)
        self._is_greeted = False
        self._commands = {
            **({"LHLO": self._ehlo} if self._behaviour.lmtp else {"EHLO": self._ehlo, "HELO": self._helo}),
            "STARTTLS": self._starttls,
            "AUTH": self._auth,
            "MAIL": self._mail,
            "RCPT": self._transactions.rcpt,
            "DATA": self._transactions.data,
            "BDAT": self._transactions.bdat,
            "RSET": self._rset,
            "NOOP": self._noop,
            "QUIT": self._quit,
        }

    def run(self) -> None:
        """Serve; never returns, but raises Over."""
        if (fault := self._speaker.due("connect")) is not None:
            self._speaker.perform(fault, b"")
        if self._behaviour.tls == "implicit":
            self._shake_hands()
        protocol = "LMTP" if self._behaviour.lmtp else "ESMTP"
        self._speaker.answer("greeting", f"220 {self._behaviour.hostname} {protocol}")
        while True:
            self._command(self._channel.read_line())

    def _command(self, raw: bytes) -> None:
        line = raw.removesuffix(b"\n").removesuffix(b"\r")
        word, _, rest = line.partition(b" ")
        verb = word.upper().decode("latin-1")
        with self._speaker.journal.change():
            self._record.commands.append(line)
        self._judge(raw, line, verb)
        if verb in self._commands:
            self._commands[verb](rest)
        else:
            self._channel.write(f"{self._speaker.reply(500, '5.5.2', 'Command not recognised')}\r\n".encode())

    def _judge(self, raw: bytes, line: bytes, verb: str) -> None:
        violate, offered, shown = self._speaker.violate, self._speaker.offered, line[:80]
        if not raw.endswith(b"\r\n") or b"\r" in line or b"\0" in line:
            violate(f"bare CR, bare LF or NUL in a command: {raw[:80]!r}")
        if len(raw) > (_MAX_AUTH if verb == "AUTH" else _MAX_COMMAND):
            violate(f"a command of {len(raw)} bytes: {shown!r}")
        if not line.isascii() and "SMTPUTF8" not in offered:
            violate(f"8-bit bytes in a command without SMTPUTF8: {shown!r}")
        if self._channel.has_input and verb in _ENDS_A_GROUP:
            violate(f"bytes sent before the reply to {shown!r}")
        elif self._channel.has_input and "PIPELINING" not in offered and verb != "BDAT":
            violate(f"pipelining that was not offered, behind {shown!r}")

    # -- opening ----------------------------------------------------------------------------------------

    def _ehlo(self, rest: bytes) -> None:
        lines = [self._behaviour.hostname, *self._keywords()]
        reply = "\r\n".join(f"250{' ' if n == len(lines) else '-'}{line}" for n, line in enumerate(lines, 1))
        is_after_starttls = self._record.used_tls and self._behaviour.tls == "starttls"
        self._transactions.drop()
        if self._speaker.answer("ehlo_tls" if is_after_starttls else "ehlo", reply) == "2":
            self._is_greeted = self._speaker.is_extended = True

    def _keywords(self) -> list[str]:
        behaviour, keywords = self._behaviour, list(self._behaviour.keywords)
        if behaviour.tls == "starttls" and not self._record.used_tls:
            keywords.append("STARTTLS")
        if self._is_auth_offered and behaviour.auth:
            keywords.append("AUTH " + " ".join(behaviour.auth))
        return keywords

    @property
    def _is_auth_offered(self) -> bool:
        behaviour = self._behaviour
        return bool(behaviour.users) and (
            behaviour.tls is None or behaviour.auth_in_clear or self._record.used_tls
        )

    def _helo(self, rest: bytes) -> None:
        self._transactions.drop()
        if self._speaker.answer("helo", f"250 {self._behaviour.hostname}") == "2":
            self._is_greeted, self._speaker.is_extended = True, False

    def _starttls(self, rest: bytes) -> None:
        if self._behaviour.tls != "starttls" or self._record.used_tls:
            self._speaker.answer("starttls", self._speaker.reply(502, "5.5.1", "STARTTLS is not available"))
        elif self._speaker.answer("starttls", self._speaker.reply(220, "2.0.0", "Ready to start TLS")) == "2":
            self._channel.flush()
            self._shake_hands()
            # RFC 3207 section 4.2: nothing learnt in clear text counts any more.
            self._transactions.drop()
            self._is_greeted = self._speaker.is_extended = False

    def _shake_hands(self) -> None:
        context, fault = self._behaviour.context, self._speaker.due("tls")
        assert context is not None
        if fault is None:
            self._channel.start_tls(context)
        else:
            self._channel.start_tls(context, lambda flight: self._spoil(fault, flight))

    def _spoil(self, fault: Fault, flight: bytes) -> None:
        self._speaker.perform(fault, flight)

    # -- AUTH -------------------------------------------------------------------------------------------

    def _auth(self, rest: bytes) -> None:
        word, _, response = rest.partition(b" ")
        mechanism = word.upper().decode("latin-1")
        if (refusal := self._auth_refusal(mechanism)) is not None:
            self._speaker.answer("auth", refusal)
            return
        try:
            initial = _decoded(response)
        except binascii.Error:
            self._speaker.answer("auth", self._speaker.reply(501, "5.5.2", "Not base64"))
            return
        challenge = (
            f"<{self._record.number}.{len(self._record.commands)}@{self._behaviour.hostname}>".encode()
        )
        exchange = EXCHANGES[mechanism](self._behaviour.users, initial if response else None, challenge)
        self._run_exchange(exchange)

    def _auth_refusal(self, mechanism: str) -> str | None:
        reply = self._speaker.reply
        if self._record.user is not None or self._transactions.is_open or not self._speaker.is_extended:
            return reply(503, "5.5.1", "AUTH is not allowed now")
        if not self._is_auth_offered and self._behaviour.tls == "starttls" and self._behaviour.users:
            return reply(538, "5.7.11", "Encryption required")
        if not self._is_auth_offered:
            return reply(503, "5.5.1", "AUTH is not available")
        if mechanism not in self._behaviour.auth or mechanism not in EXCHANGES:
            return reply(504, "5.5.4", "Unrecognised mechanism")
        return None

    def _run_exchange(self, exchange: Exchange) -> None:
        user: str | None = None
        try:
            challenge = next(exchange)
            while True:
                asked = self._speaker.answer("auth", b"334 " + base64.b64encode(challenge) + b"\r\n") == "3"
                response = self._auth_response() if asked else None
                if response is None:
                    return
                challenge = exchange.send(response)
        except StopIteration as finished:
            user = finished.value
        if user is None:
            self._speaker.answer(
                "auth", self._speaker.reply(535, "5.7.8", "Authentication credentials invalid")
            )
        elif (
            self._speaker.answer("auth", self._speaker.reply(235, "2.7.0", "Authentication successful"))
            == "2"
        ):
            with self._speaker.journal.change():
                self._record.user = user

    def _auth_response(self) -> bytes | None:
        line = self._channel.read_line().removesuffix(b"\r\n")
        with self._speaker.journal.change():
            self._record.auth_responses.append(line)
        if self._channel.has_input:
            self._speaker.violate("bytes sent before the reply to an AUTH response")
        try:
            return base64.b64decode(line, validate=True)
        except binascii.Error:
            text = "Authentication cancelled" if line == b"*" else "Not base64"
            self._speaker.answer("auth", self._speaker.reply(501, "5.7.0", text))
            return None

    # -- the rest ---------------------------------------------------------------------------------------

    def _mail(self, rest: bytes) -> None:
        if not self._is_greeted:
            self._speaker.answer("mail", self._speaker.reply(503, "5.5.1", "EHLO first"))
        elif self._behaviour.require_tls and not self._record.used_tls:
            self._speaker.answer(
                "mail", self._speaker.reply(530, "5.7.0", "Must issue a STARTTLS command first")
            )
        elif self._behaviour.require_auth and self._record.user is None:
            self._speaker.answer("mail", self._speaker.reply(530, "5.7.0", "Authentication required"))
        else:
            self._transactions.mail(rest)

    def _rset(self, rest: bytes) -> None:
        self._transactions.drop()
        self._speaker.answer("rset", self._speaker.reply(250, "2.0.0", "Ok"))

    def _noop(self, rest: bytes) -> None:
        self._speaker.answer("noop", self._speaker.reply(250, "2.0.0", "Ok"))

    def _quit(self, rest: bytes) -> None:
        self._speaker.answer("quit", self._speaker.reply(221, "2.0.0", "Bye"))
        raise Over("server", "goodbye")


def _decoded(response: bytes) -> bytes:
    """An initial response; "=" is an empty one (RFC 4954 section 4)."""
    return b"" if response == b"=" else base64.b64decode(response, validate=True)
