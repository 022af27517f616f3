"""What a transaction says of its message, and what its replies and times mean. No I/O."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from mailbridge.client.parameters import (
    deliver_by,
    dsn_of_message,
    dsn_of_recipient,
    hold,
    priority,
    require_length,
)
from mailbridge.errors import InvalidMessage, MessageTooLarge, NotSupported
from mailbridge.message.delivery_options import DSN, DeliverBy
from mailbridge.message.envelope import Envelope
from mailbridge.rendering.lines import canonical
from mailbridge.rendering.render import Rendered, render
from mailbridge.smtp import commands
from mailbridge.smtp.capabilities import Capabilities

# The key of `SendResult.timings` under which each stage of a transaction counts.
_PARTS = {
    **dict.fromkeys(("rset", "mail_from", "rcpt_to", "data"), "envelope"),
    **dict.fromkeys(("content", "final"), "data"),
}
_UTC = "%Y-%m-%d %H:%M:%S UTC"


def mail_parameters(
    envelope: Envelope, rendered: Rendered, capabilities: Capabilities, *, is_verified: bool = False
) -> tuple[Rendered, list[str]]:
    """The parameters of MAIL FROM, and the message as this server can take it.

    SMTPUTF8 (RFC 6531) and BODY (RFC 6152, RFC 3030) where the message needs them, SIZE (RFC 1870)
    where it is offered, and the delivery options of the envelope. `is_verified`: it goes over TLS, and the
    server's certificate was checked. Raises `NotSupported` for what is needed and not offered,
    `MessageTooLarge` for what is beyond the server's limit.
    """
    parameters: list[str] = []
    if envelope.needs_smtputf8 or rendered.needs_smtputf8:
        if "SMTPUTF8" not in capabilities:
            raise NotSupported(
                f"{_needing_utf8(envelope)} needs SMTPUTF8, which the server does not offer",
                extension="SMTPUTF8",
                stage="mail_from",
            )
        parameters.append("SMTPUTF8")
    rendered, body = _body(envelope, rendered, capabilities)
    parameters += body
    if "SIZE" in capabilities:
        _require_size(envelope, rendered.size, capabilities.size_limit)
        parameters.append(f"SIZE={rendered.size}")
    parameters += _asked_for(envelope, rendered, capabilities, is_verified=is_verified)
    require_length(commands.mail_from, envelope.sender, parameters)
    return rendered, parameters


def recipient_parameters(envelope: Envelope, capabilities: Capabilities) -> dict[str, list[str]]:
    """The parameters of RCPT TO by recipient: NOTIFY and ORCPT (RFC 3461) where reports are asked for.

    Raises `NotSupported` as `mail_parameters` does.
    """
    longest = max(map(str.encode, envelope.recipients), key=len).decode()
    require_length(commands.rcpt_to, longest)
    if not (envelope.dsn or envelope.recipient_options) or not _asks_dsn(envelope, capabilities):
        return {}
    dsn = envelope.dsn or DSN()
    own = {each.address: each for each in envelope.recipient_options}
    found: dict[str, list[str]] = {}
    for address in envelope.recipients:
        recipient = own.get(address)
        notify = (recipient and recipient.notify) or dsn.notify
        found[address] = dsn_of_recipient(address, notify, (recipient and recipient.orcpt) or dsn.orcpt)
    return found


def recipient_groups(
    envelope: Envelope, capabilities: Capabilities, *, all_or_none: bool
) -> list[tuple[str, ...]]:
    """The recipients as the server takes them, one transaction each (RFC 9422 sections 4.2 and 4.3).

    Raises `InvalidMessage` with `all_or_none` if that are several, since each stands for itself.
    """
    limits = capabilities.limits
    most = limits.get("RCPTMAX", len(envelope.mailboxes))
    most_domains = limits.get("RCPTDOMAINMAX", len(envelope.mailboxes))
    groups: list[list[str]] = [[]]
    domains: set[str] = set()
    for mailbox in envelope.mailboxes:
        domains.add(mailbox.domain.lower())
        if len(groups[-1]) >= most or len(domains) > most_domains:
            groups.append([])
            domains = {mailbox.domain.lower()}
        groups[-1].append(mailbox.addr_spec)
    if all_or_none and len(groups) > 1:
        raise InvalidMessage(
            f"The server takes these recipients in {len(groups)} transactions only"
            f" ({', '.join(f'{name}={value}' for name, value in limits.items())}),"
            " and partial='all-or-none' forbids to split them",
            stage="rcpt_to",
            hint="Send to fewer recipients at once, or allow partial='deliver'.",
        )
    return [tuple(group) for group in groups]


def _needing_utf8(envelope: Envelope) -> str:
    mailboxes = (envelope.sender_mailbox, *envelope.mailboxes)
    addresses = [each.addr_spec for each in mailboxes if each is not None and each.needs_smtputf8]
    return f"The address {addresses[0]}" if addresses else "A header field"


def _body(envelope: Envelope, rendered: Rendered, capabilities: Capabilities) -> tuple[Rendered, list[str]]:
    """The message in the form that was asked for or is needed, and the parameter that says so."""
    if rendered.is_binary or envelope.body == "binarymime":
        missing = next((name for name in ("BINARYMIME", "CHUNKING") if name not in capabilities), None)
        if missing is None:
            return replace(rendered, is_binary=True), ["BODY=BINARYMIME"]
        if not _is_soft(envelope, "BINARYMIME"):
            raise _not_offered("Binary content", missing, "BINARYMIME")
        rendered = _not_binary(rendered, missing)
    if envelope.body == "7bit":
        return _seven_bit(rendered), []
    if envelope.body == "8bitmime" and "8BITMIME" not in capabilities and not _is_soft(envelope, "8BITMIME"):
        raise _not_offered("body='8bitmime'", "8BITMIME")
    if "8BITMIME" not in capabilities:
        return rendered.seven_bit(), []
    says_so = rendered.is_eight_bit or envelope.body == "8bitmime"
    return rendered, ["BODY=8BITMIME"] if says_so else []


def _not_binary(rendered: Rendered, missing: str) -> Rendered:
    """Binary content that is binary in name only, as ordinary content."""
    if not rendered.is_binary:
        return rendered
    content = rendered.content
    if isinstance(content, bytes) and canonical(content) == content:
        with suppress(InvalidMessage):  # a NUL, a line that is too long
            return render(content)
    raise NotSupported(
        f"Binary content needs {missing}, which the server does not offer, and this can't go otherwise",
        extension=missing,
        stage="mail_from",
    )


def _seven_bit(rendered: Rendered) -> Rendered:
    try:
        return rendered.seven_bit()
    except NotSupported as error:  # it blames the server, which has nothing to do with it
        why = error.message.rpartition(". ")[2]
    raise InvalidMessage(f"body='7bit' is asked for, which is impossible. {why}", stage="mail_from")


def _require_size(envelope: Envelope, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise MessageTooLarge(
            f"The message has {size} bytes, and the server takes no more than {limit}",
            size=size,
            limit=limit,
            sender=envelope.sender,
            stage="mail_from",
        )


def _asked_for(
    envelope: Envelope, rendered: Rendered, capabilities: Capabilities, *, is_verified: bool
) -> list[str]:
    parameters: list[str] = []
    is_tls_required = envelope.require_tls and _asks_tls(envelope, capabilities, is_verified=is_verified)
    if is_tls_required:
        parameters.append("REQUIRETLS")
    if envelope.dsn and _asks_dsn(envelope, capabilities):
        # RFC 8689 section 5: with REQUIRETLS, reports of failure bring back the header alone.
        parameters += dsn_of_message(envelope.dsn, rendered.message_id, headers_only=is_tls_required)
    if envelope.deliver_by is not None:
        problem = _deliver_by_problem(envelope.deliver_by, capabilities)
        if _asks(envelope, capabilities, "DELIVERBY", "deliver_by", problem):
            parameters.append(deliver_by(envelope.deliver_by))
    if envelope.send_at is not None:
        problem = _hold_problem(envelope.send_at, capabilities)
        if _asks(envelope, capabilities, "FUTURERELEASE", "send_at", problem):
            parameters.append(hold(envelope.send_at))
    if envelope.mt_priority is not None and _asks(envelope, capabilities, "MT-PRIORITY", "mt_priority"):
        parameters.append(priority(envelope.mt_priority))
    return parameters


def _asks(
    envelope: Envelope, capabilities: Capabilities, extension: str, what: str, problem: str = ""
) -> bool:
    """Whether an option goes out; raises if it can't and must. `problem`: why not, although it is offered."""
    if extension in capabilities and not problem:
        return True
    if _is_soft(envelope, extension):
        return False
    if extension not in capabilities:
        raise _not_offered(what, extension)
    raise NotSupported(problem, extension=extension, stage="mail_from", hint=_without(extension))


def _asks_dsn(envelope: Envelope, capabilities: Capabilities) -> bool:
    return _asks(envelope, capabilities, "DSN", "dsn")


def _asks_tls(envelope: Envelope, capabilities: Capabilities, *, is_verified: bool) -> bool:
    """RFC 8689 section 4.2.1; section 5 says that a bounce is not to be lost for want of it."""
    if not envelope.sender and not (is_verified and "REQUIRETLS" in capabilities):
        return False
    problem = "" if is_verified else "require_tls needs a connection with TLS and a verified certificate"
    return _asks(envelope, capabilities, "REQUIRETLS", "require_tls", problem)


def _deliver_by_problem(value: DeliverBy, capabilities: Capabilities) -> str:
    least = capabilities.least_deliver_by
    if value.mode == "R" and least is not None and value.seconds < least:  # RFC 2852 section 3
        return f"deliver_by is {value.seconds} seconds, and the server promises nothing below {least}"
    return ""


def _hold_problem(release: datetime | int, capabilities: Capabilities) -> str:
    """RFC 4865 section 4; which of the two limits applies depends on the form."""
    longest, latest = capabilities.longest_hold, capabilities.latest_release
    if isinstance(release, int):
        if longest is not None and release > longest:
            return f"send_at is {release} seconds from now, and the server holds messages for {longest}"
    elif latest is not None and release > latest:
        return f"send_at is {release:{_UTC}}, and the server holds messages until {latest:{_UTC}}"
    return ""


def _is_soft(envelope: Envelope, extension: str) -> bool:
    """Whether an option is left out rather than the message refused."""
    if extension == "MT-PRIORITY":  # it changes when a message arrives, and nothing else
        return extension not in envelope.require
    return extension in envelope.prefer


def _not_offered(what: str, missing: str, extension: str = "") -> NotSupported:
    return NotSupported(
        f"{what} needs {missing}, which the server does not offer",
        extension=missing,
        stage="mail_from",
        hint=_without(extension or missing),
    )


def _without(extension: str) -> str:
    if extension == "MT-PRIORITY":
        return "Leave it out of require to send without it."
    return f'With prefer=("{extension}",) in the envelope the message goes without it.'


def sending_seconds(spent: Mapping[str, float]) -> dict[str, float]:
    """`SendResult.timings` of one message, from the seconds of its transactions by stage."""
    timings = {"envelope": 0.0, "data": 0.0}
    for stage, seconds in spent.items():
        timings[_PARTS[stage]] += seconds
    return timings
