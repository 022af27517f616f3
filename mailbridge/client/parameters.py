"""The parameters of MAIL and RCPT as they are written, and how long a line they may make.

Each function takes values that are checked already. Whether the server can do with them, and whether
they go out at all, is decided elsewhere.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from mailbridge.errors import InvalidMessage
from mailbridge.message.delivery_options import DSN, MAX_ENVID, MAX_ORCPT, MESSAGE_ID, DeliverBy
from mailbridge.reply import printable
from mailbridge.smtp import xtext
from mailbridge.smtp.commands import LONGEST_LINE, Command

# By how much each parameter lengthens the line that a server must take, its blank included. Where an RFC
# gives no number (RFC 3461) it is the longest value that the RFC allows.
ALLOWANCES = {
    "SIZE": 26,  # RFC 1870 section 3
    "BODY": 17,  # RFC 6152 section 2; RFC 3030 section 3 says 16
    "SMTPUTF8": 10,  # RFC 6531 section 3.1
    "REQUIRETLS": 11,  # RFC 8689 section 7
    "RET": 9,
    "ENVID": 101,
    "BY": 17,  # RFC 2852 section 3
    "HOLDFOR": 34,  # RFC 4865 section 3
    "HOLDUNTIL": 34,
    "MT-PRIORITY": 15,  # RFC 6710 section 3
    "NOTIFY": 29,
    "ORCPT": 501,
}


def dsn_of_message(dsn: DSN, message_id: str | None, *, headers_only: bool = False) -> list[str]:
    """RET and ENVID (RFC 3461 sections 4.3 and 4.4).

    With `headers_only` FULL becomes HDRS. A Message-ID that is missing or too long makes no ENVID.
    """
    parameters = []
    if dsn.ret:
        parameters.append(f"RET={'HDRS' if headers_only else dsn.ret}")
    envid = _envid_of(message_id) if dsn.envid == MESSAGE_ID else dsn.envid
    if envid:
        parameters.append(f"ENVID={xtext.encode(envid)}")
    return parameters


def _envid_of(message_id: str | None) -> str | None:
    text = (message_id or "").removeprefix("<").removesuffix(">")
    is_fit = text.isascii() and text.isprintable() and len(xtext.encode(text)) <= MAX_ENVID
    return text if is_fit else None


def dsn_of_recipient(address: str, notify: tuple[str, ...], orcpt: str | None) -> list[str]:
    """NOTIFY and ORCPT (RFC 3461 sections 4.1 and 4.2).

    Without `orcpt` it is the recipient, unless no report is ever wanted: so the RFC's own example
    (section 10.1) has it. Raises InvalidMessage if `orcpt` gets too long by encoding it.
    """
    parameters = [f"NOTIFY={','.join(notify)}"] if notify else []
    if orcpt is not None:
        written = _original_recipient(orcpt)
        if len(written) > MAX_ORCPT:
            raise InvalidMessage(f"The orcpt {printable(orcpt, 80)!r} is too long (RFC 3461 section 4.2)")
        parameters.append(f"ORCPT={written}")
    elif notify != ("NEVER",):
        written = _original_recipient(f"{'rfc822' if address.isascii() else 'utf-8'};{address}")
        if len(written) <= MAX_ORCPT:
            parameters.append(f"ORCPT={written}")
    return parameters


def _original_recipient(orcpt: str) -> str:
    kind, _, address = orcpt.partition(";")
    # RFC 6533 section 3: this form is right whether SMTPUTF8 is offered or not.
    return f"{kind};{xtext.encode_address(address) if kind == 'utf-8' else xtext.encode(address)}"


def deliver_by(value: DeliverBy) -> str:
    """RFC 2852 section 4."""
    return f"BY={value.seconds};{value.mode}{'T' if value.trace else ''}"


def hold(release: datetime | int) -> str:
    """RFC 4865 section 5."""
    if isinstance(release, int):
        return f"HOLDFOR={release}"
    return f"HOLDUNTIL={release.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def priority(value: int) -> str:
    """RFC 6710 section 4.1."""
    return f"MT-PRIORITY={value}"


def require_length(
    write: Callable[[str, Sequence[str]], Command], address: str, parameters: Sequence[str] = ()
) -> None:
    """Raise InvalidMessage if the command is longer than a server must take (RFC 5321 section 4.5.3.1.4)."""
    if len("MAIL FROM:<>\r\n") + len(address.encode()) <= LONGEST_LINE:
        return  # no parameter is longer than its allowance
    command = write(address, parameters)
    allowed = LONGEST_LINE + sum(ALLOWANCES[each.partition("=")[0]] for each in parameters)
    if len(bytes(command)) > allowed:
        raise InvalidMessage(
            f"The command {printable(command.shown, 80)} has {len(bytes(command))} bytes, and servers take"
            f" {allowed}",
            stage=command.stage,
        )
