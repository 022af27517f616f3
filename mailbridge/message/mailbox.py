"""One mailbox: local part and domain, checked when it is made and written from these parts alone.

The syntax of RFC 5321 section 4.1.2, with local parts in UTF-8 (RFC 6531) and domains in A-labels.
Nothing here takes a text apart (`addresses` does), and nothing asks DNS whether a domain exists.
"""

import ipaddress
import re
from dataclasses import dataclass

from mailbridge.errors import InvalidAddress
from mailbridge.reply import printable

__all__ = ["Mailbox", "to_ascii_domain"]

# RFC 5321 section 4.5.3.1.1 asks servers for at least 64 octets; mailing lists that encode a
# recipient into the sender (VERP, SRS) use more, and servers take them.
MAX_LOCAL_OCTETS = 256
MAX_DOMAIN_OCTETS = 255  # RFC 5321 section 4.5.3.1.2
MAX_LABEL_OCTETS = 63  # RFC 1035 section 2.3.4

# C0, DEL and C1, the line separators of Unicode, and what UTF-8 can't say.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
ATEXT = r"[^\x00-\x20\x7f\"(),.:;<>@\[\]\\]"
DOT_ATOM = re.compile(rf"{ATEXT}++(?:\.{ATEXT}++)*+")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")


def refusal(text: str, why: str) -> InvalidAddress:
    return InvalidAddress(f'Invalid address "{printable(text)}": {why}')


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox: `local` is the local part without its quotes, `domain` an ASCII domain name
    (A-labels) or an address literal in brackets. An invalid one can't be made: InvalidAddress.
    """

    local: str
    domain: str

    def __post_init__(self) -> None:
        problem = _local_problem(self.local) or _domain_problem(self.domain)
        if problem:
            raise refusal(f"{self.local}@{self.domain}", problem)

    @property
    def addr_spec(self) -> str:
        """The address as it stands in commands and headers; quoted only where it must be."""
        if DOT_ATOM.fullmatch(self.local):
            return f"{self.local}@{self.domain}"
        return f"{quoted(self.local)}@{self.domain}"

    @property
    def needs_smtputf8(self) -> bool:
        """Whether only a server with SMTPUTF8 (RFC 6531) can take it."""
        return not self.local.isascii()

    def __str__(self) -> str:
        return self.addr_spec


def to_ascii_domain(text: str) -> str:
    """`text` as a domain in A-labels by UTS-46; ASCII passes as it is, without any check.

    Python's own codec is of no use: it maps `faß` to `fass`. Raises InvalidAddress, which names
    the extra `idna` where that is what's missing.
    """
    domain, problem = as_ascii(text)
    if problem:
        raise refusal(text, problem)
    return domain


def as_ascii(domain: str) -> tuple[str, str]:
    """`domain` in ASCII, and what is wrong with it if anything is."""
    if domain.isascii():
        return domain, ""
    if len(domain) > MAX_DOMAIN_OCTETS:
        return domain, f"its domain is longer than {MAX_DOMAIN_OCTETS} octets"
    try:
        import idna
    except ImportError:
        return domain, "a domain that is not ASCII needs the extra mailbridge-smtp[idna], or its xn-- form"
    try:
        encoded = idna.encode(domain, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError as error:  # idna.IDNAError is one
        return domain, f"its domain is no internationalized domain name ({printable(str(error))})"
    if encoded.rpartition(".")[2].isdigit():
        return domain, "its domain only looks like a name; it maps to numbers"
    return encoded, ""


def quoted(content: str) -> str:
    escaped = content.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _local_problem(local: str) -> str:
    if not local:
        return "its local part is empty"
    if CONTROL.search(local):
        return "it contains a control character"
    if "<" in local or ">" in local:
        # Legal in quotes, but servers have taken what follows ">" for parameters of the command.
        return "'<' and '>' can't stand in a local part"
    if len(local.encode()) > MAX_LOCAL_OCTETS:
        return f"its local part is longer than {MAX_LOCAL_OCTETS} octets"
    return ""


def _domain_problem(domain: str) -> str:
    if not domain.isascii() or not domain:
        return "its domain is not ASCII" if domain else "its domain is empty"
    if domain.startswith("["):
        return _literal_problem(domain)
    if len(domain) > MAX_DOMAIN_OCTETS:
        return f"its domain is longer than {MAX_DOMAIN_OCTETS} octets"
    for label in domain.split("."):
        if not label:
            return "its domain has an empty label (a dot too many)"
        if len(label) > MAX_LABEL_OCTETS:
            return f"a label of its domain is longer than {MAX_LABEL_OCTETS} octets"
        if not _LABEL.fullmatch(label):
            return "its domain contains something else than letters, digits, hyphens and dots"
    return ""


def _literal_problem(domain: str) -> str:
    """RFC 5321 section 4.1.3, without General-address-literal: no tag but IPv6 was ever assigned."""
    content = domain[1:-1] if domain.endswith("]") else ""
    tag, _, address = content.partition(":")
    try:
        if tag.upper() == "IPV6" and "%" not in address:  # a zone means nothing to another host
            ipaddress.IPv6Address(address)
        else:
            ipaddress.IPv4Address(content)
    except ValueError:
        return "its address literal is neither [IPv4] nor [IPv6:address]"
    return ""
