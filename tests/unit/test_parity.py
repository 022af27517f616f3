"""docs/parity.md keeps its word: it names what it must, and all that it names exists, the tests too."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

import mailbridge
from mailbridge import DSN, MailbridgeError, SMTPConfig, SMTPConnection
from mailbridge.config import smtp_config
from tests.documents import GROUPS, ROOT

TEXT = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")

# What the documents of Nodemailer and NexoMailer name, in their order.
NAMED = {
    "SMTP transport": """
        createTransport(options) | createTransport(options, defaults) | createTransport(url) | smtp: | smtps:
        host | port | secure | auth | auth.user | auth.pass | auth.type | auth.type: "oauth2"
        auth.accessToken | auth.expires | authMethod | custom authentication handler | NTLM handler
        tls | tls.servername | tls.rejectUnauthorized | ignoreTLS | requireTLS
        STARTTLS where it is offered (the default) | name | localAddress | connectionTimeout | greetingTimeout
        socketTimeout | dnsTimeout | logger | logger: true | debug | disableFileAccess | disableUrlAccess
        pool | proxy | transporter.sendMail() | transporter.verify() | transporter.verify(callback)
        transporter.set()
    """,
    "SMTP connection": """
        new SMTPConnection(options) | host | port | secure | servername | name | localAddress
        connectionTimeout | greetingTimeout | socketTimeout | dnsTimeout | logger | debug | lmtp | ignoreTLS
        requireTLS | opportunisticTLS | tls | socket | connection | secured | allowInternalNetworkInterfaces
        customAuth | event connect | event error | event end
        connect(callback) | login(auth, callback) | user | pass | method | oauth2
        send(envelope, message, callback) | message as String | message as Buffer | message as Stream
        info.accepted | info.rejected | info.rejectedErrors | info.response | info.envelopeTime
        info.messageTime | info.messageSize | reset(callback) | quit() | close()
        envelope.from | envelope.to | envelope.size | envelope.use8BitMime | envelope.dsn
        dsn.ret | dsn.envid | dsn.notify | dsn.orcpt
        id | property secure | authenticated | lastServerResponse | allowsAuth
        PLAIN | LOGIN | CRAM-MD5 | XOAUTH2
    """,
    "Proxies": """
        proxy | http: | https: | credentials in the URL | process.env.HTTP_PROXY | socks module
        transporter.set("proxy_socks_module") | socks4: | socks4a: | socks5: | socks: | a proxy by SSH
        proxy_handler_<protocol> | handler argument proxy | handler argument options | handler argument done
        connection | secured: true | pooled connections through a proxy
    """,
    "NexoMailer's SMTP provider": """
        providers | type: "smtp" | priority | config | host | port | auth.user | auth.pass
        auth.type: "oauth2" | auth.accessToken | pool | maxConnections | connectionTimeout | socketTimeout
        secure | tls.rejectUnauthorized | tls.servername | name | Auto-STARTTLS | LOGIN, PLAIN, XOAUTH2
    """,
}
OTHERS = "What other clients have"
# In backticks, but no name of ours: URLs, values, environment variables, actions of log lines.
LITERAL = re.compile(
    r"[a-z0-9]+://|unix:/path|[\"(\[-]|False$|[A-Z]+_PROXY$|connection_(opened|failed|closed)$"
)
# Of Python, an extra, an option of each of `servers`, a part of the sentence.
WORDS = {"ssl", "logging", "str", "bytes", "Path", "email", "gssapi", "socks", "sock", "priority", "weight"}


def table(heading: str) -> list[list[str]]:
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


ROWS = [(heading, *row) for heading in (*NAMED, OTHERS) for row in table(heading)]


def names_of(text: str) -> list[str]:
    return [name.strip() for line in text.strip().splitlines() for name in line.split(" | ")]


@cache
def functions_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@cache
def options() -> frozenset[str]:
    groups = {**GROUPS, "dsn": DSN}
    inner = {f"{group}.{field.name}" for group, kind in groups.items() for field in fields(kind)}
    return frozenset({*smtp_config.KNOWN, *inner})


def has_attribute(kind: type, name: str) -> bool:
    """Also what an instance gets when it is made."""
    made = {SMTPConnection: SMTPConnection(SMTPConfig()), MailbridgeError: MailbridgeError("no")}
    annotated = {found for each in kind.__mro__ for found in vars(each).get("__annotations__", {})}
    return hasattr(made.get(kind, kind), name) or name in annotated


def exists(token: str) -> bool:
    name = re.split(r"[=(\[]", token, maxsplit=1)[0].strip()
    if LITERAL.match(token) or name in WORDS or name in options():
        return True
    first, _, attribute = name.partition(".")
    if first not in mailbridge.__all__:
        return False
    return not attribute or has_attribute(getattr(mailbridge, first), attribute)


@pytest.mark.parametrize("heading", NAMED)
def test_everything_is_named_once_and_in_order(heading: str) -> None:
    assert [row[0].replace("`", "") for row in table(heading)] == names_of(NAMED[heading])


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_what_is_named_exists(row: tuple[str, ...]) -> None:
    heading, name, here, shown_by = row
    assert here
    assert [token for token in re.findall(r"`([^`]+)`", here) if not exists(token)] == []
    shown = re.findall(r"`([^`]+)::(\w+)`", shown_by)
    assert [test for path, test in shown if test not in functions_in(path)] == []
    is_ours = not here.startswith("no: ")
    assert shown or (not is_ours and shown_by == "–" and heading == OTHERS), name


@pytest.mark.parametrize(
    ("token", "known"),
    [
        ("pool.max_size", True),
        ("pool.max_sise", False),
        ("Envelope.sender", True),
        ("Envelope.from", False),
        ("SMTPConnection.id", True),
        ("SMTPConnection.login(auth=…)", True),
        ("SMTPConnection.leave()", False),
        ("Nobody", False),
        ('security="tls"', True),
        ('secure="tls"', False),
    ],
)
def test_the_rule_bites(token: str, known: bool) -> None:
    assert exists(token) is known


def test_nothing_is_fetched() -> None:
    """No module of the core but that of OAuth2 speaks HTTP, and none opens a URL."""
    package = Path(mailbridge.__file__).parent
    clients = re.compile(r"\b(urllib\.request|urlopen|http\.client|requests|httpx|ftplib)\b")
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(clients.search(line) for line in path.read_text("utf-8").splitlines() if "import" in line)
    }
    assert found <= {"oauth2/endpoint.py"}
