"""What becomes of a connection or a transaction: the fault of a server, and the error that it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mailbridge import (
    AuthenticationFailed,
    ConnectionLost,
    DeadlineExceeded,
    GreetingRefused,
    MailbridgeError,
    MessageRefused,
    RecipientsRefused,
    Reply,
    SenderRefused,
)

MAIL = b"From: a@x.example\r\nTo: b@y.example\r\nSubject: x\r\n\r\nHello\r\n"
SENDER, RECIPIENT = "a@x.example", "b@y.example"
USER, PASSWORD = "user", "password"


def reply(text: str) -> Reply:
    code, _, rest = text.partition(" ")
    status = rest.split(" ")[0]
    return Reply(int(code), (rest,), tuple(map(int, status.split("."))))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Event:
    """What becomes of a transaction: the fault of a server, and the error that it is for the policy.

    `reaches` are the stages that a server counts for it, since all commands go out in one flight.
    """

    stage: str
    how: str
    error: Callable[[], MailbridgeError] | None
    reaches: tuple[str, ...] = ("mail", "rcpt", "data")

    @property
    def is_lost(self) -> bool:
        return self.how in ("close", "silence") or self.how.startswith("421")


def lost(stage: str, text: str = "", *, unknown: bool = False) -> MailbridgeError:
    error = ConnectionLost("lost", stage=stage, reply=reply(text) if text else None)
    error.outcome_unknown = unknown
    return error


def refused(stage: str, text: str) -> MailbridgeError:
    if stage == "mail":
        return SenderRefused("no", sender=SENDER, stage="mail_from", reply=reply(text))
    if stage == "rcpt":
        return RecipientsRefused("no", rejected={RECIPIENT: reply(text)}, stage="rcpt_to")
    if stage == "greeting":
        return GreetingRefused("no", stage=stage, reply=reply(text))
    if stage == "auth":
        return AuthenticationFailed("no", stage=stage, reply=reply(text))
    return MessageRefused("no", stage=stage, reply=reply(text))


def refusal(stage: str, text: str, *reaches: str) -> Event:
    return Event(stage, text, lambda: refused(stage, text), reaches or ("mail", "rcpt", "data"))


ALL = ("mail", "rcpt", "data", "final")
TRANSACTIONS = {
    "taken": Event("", "", None, ALL),
    "mail 451": refusal("mail", "451 4.3.0 no"),
    "mail 451 idle": refusal("mail", "451 4.4.2 no"),
    "mail 550": refusal("mail", "550 5.7.1 no"),
    "mail 421": Event("mail", "421 4.3.2 bye", lambda: lost("mail_from", "421 4.3.2 bye"), ("mail",)),
    "mail lost": Event("mail", "close", lambda: lost("mail_from"), ("mail",)),
    "rcpt 450": refusal("rcpt", "450 4.2.1 no"),
    "rcpt 550": refusal("rcpt", "550 5.1.1 no"),
    "data 451": refusal("data", "451 4.3.0 no"),
    "final 451": refusal("final", "451 4.3.0 no", *ALL),
    "final 554": refusal("final", "554 5.6.0 no", *ALL),
    "final lost": Event("final", "close", lambda: lost("final", unknown=True), ALL),
    # For as long as it may take; only without sockets.
    "mail silent": Event("mail_from", "silence", lambda: DeadlineExceeded("late", stage="mail_from")),
    "content silent": Event("content", "silence", lambda: DeadlineExceeded("late", stage="content")),
}
OPENINGS = {
    "greeting 421": refusal("greeting", "421 4.3.2 no"),
    "greeting 554": refusal("greeting", "554 5.7.1 no"),
    "greeting lost": Event("greeting", "close", lambda: lost("greeting")),
    "auth 535": refusal("auth", "535 5.7.8 no"),
    "greeting silent": Event("greeting", "silence", lambda: DeadlineExceeded("late", stage="greeting")),
}
