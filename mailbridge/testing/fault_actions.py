"""Carrying out faults: every kind as a small function that misuses a channel.

It knows no stages but the handshake, where there are bytes instead of replies, and nothing of what a reply
means for the session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from mailbridge.testing.faults import Fault, Kind, Then, as_wire
from mailbridge.testing.wire import Channel, Over

__all__ = ["perform"]

GARBAGE = b"\x00\xff\xfe\x80 this is not SMTP \x01\r\n"
# A flood is sent in pieces that are large beside a line and small beside a socket buffer.
FLOOD = 16384
DRIP_INTERVAL = 0.2
# Gives each byte a fair chance of a segment of its own; nothing depends on it.
SPLIT_INTERVAL = 0.001


def perform(fault: Fault, channel: Channel, regular: bytes) -> bytes | None:
    """Carry out `fault` where `regular` would have been sent. Raises Over where that ends the connection.

    Returns the well-formed reply that went out, or None where nothing went out that could be called one.
    """
    channel.flush()
    if fault.delay:
        channel.pause(fault.delay)
    sent = _PERFORMERS[fault.kind](fault, channel, regular)
    match fault.then or _usual_end(fault, sent):
        case "close":
            raise Over("fault")
        case "reset":
            raise Over("fault", "reset")
        case "silence":
            channel.discard()
    return sent


def _usual_end(fault: Fault, sent: bytes | None) -> Then:
    if fault.kind == "half":
        return "silence"
    # RFC 5321 section 3.8: whoever says 421 closes.
    return "close" if sent is not None and sent.startswith(b"421") else "continue"


def _close(fault: Fault, channel: Channel, regular: bytes) -> NoReturn:
    raise Over("fault")


def _reset(fault: Fault, channel: Channel, regular: bytes) -> NoReturn:
    raise Over("fault", "reset")


def _silence(fault: Fault, channel: Channel, regular: bytes) -> None:
    channel.discard()


def _stall(fault: Fault, channel: Channel, regular: bytes) -> None:
    channel.stall()


def _half(fault: Fault, channel: Channel, regular: bytes) -> None:
    channel.send(regular[: len(regular) // 2 if fault.at is None else fault.at])


def _garbage(fault: Fault, channel: Channel, regular: bytes) -> None:
    channel.send(GARBAGE if fault.reply is None else as_wire(fault.reply))


def _code(regular: bytes) -> bytes:
    return regular[:3] if regular[:3].isdigit() else b"250"


def _endless(fault: Fault, channel: Channel, regular: bytes) -> NoReturn:
    line = _code(regular) + b"-and there is more to say\r\n"
    flood = line * (FLOOD // len(line))
    while True:
        channel.send(flood)


def _endless_line(fault: Fault, channel: Channel, regular: bytes) -> NoReturn:
    channel.send(_code(regular) + b" ")
    while True:
        channel.send(b"x" * FLOOD)


def _drip(fault: Fault, channel: Channel, regular: bytes) -> None:
    interval = DRIP_INTERVAL if fault.interval is None else fault.interval
    if fault.stage == "tls":
        _send_bytewise(channel, regular, interval)
        return
    while True:
        channel.send(_code(regular) + b"-still here\r\n")
        channel.pause(interval)


def _double(fault: Fault, channel: Channel, regular: bytes) -> bytes:
    channel.send(regular * 2)
    return regular


def _split(fault: Fault, channel: Channel, regular: bytes) -> bytes:
    interval = SPLIT_INTERVAL if fault.interval is None else fault.interval
    if fault.at is None:
        _send_bytewise(channel, regular, interval)
    else:
        channel.send(regular[: fault.at])
        channel.pause(interval)
        channel.send(regular[fault.at :])
    return regular


def _send_bytewise(channel: Channel, data: bytes, interval: float) -> None:
    for position in range(len(data)):
        channel.send(data[position : position + 1])
        channel.pause(interval)


def _late(fault: Fault, channel: Channel, regular: bytes) -> bytes:
    channel.send(regular)  # perform() has waited already
    return regular


def _extra(fault: Fault, channel: Channel, regular: bytes) -> bytes:
    channel.send(regular + as_wire(fault.reply or b""))
    return regular


def _reply(fault: Fault, channel: Channel, regular: bytes) -> bytes:
    reply = as_wire("552 5.3.4 Message too big" if fault.reply is None else fault.reply)
    channel.send(reply)
    return reply


def _mixed(fault: Fault, channel: Channel, regular: bytes) -> None:
    other = b"250" if regular.startswith(b"4") else b"451"
    channel.send(_code(regular) + b"-one thing\r\n" + other + b" and another\r\n")


def _wrong_code(fault: Fault, channel: Channel, regular: bytes) -> None:
    channel.send(b"999 There is no such code\r\n" if fault.reply is None else as_wire(fault.reply))


def _four_digits(fault: Fault, channel: Channel, regular: bytes) -> None:
    channel.send(_code(regular) + b"0 One digit too many\r\n")


_PERFORMERS: dict[Kind, Callable[[Fault, Channel, bytes], bytes | None]] = {
    "close": _close,
    "reset": _reset,
    "silence": _silence,
    "stall": _stall,
    "half": _half,
    "garbage": _garbage,
    "endless": _endless,
    "endless_line": _endless_line,
    "drip": _drip,
    "double": _double,
    "split": _split,
    "late": _late,
    "extra": _extra,
    "reply": _reply,
    "early": _reply,
    "mixed": _mixed,
    "wrong_code": _wrong_code,
    "four_digits": _four_digits,
}
