"""What a mailer logs: one line for each event, its fields, whose logger it is on, and what no line shows."""

import ast
import json
import logging
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mailbridge
from mailbridge import (
    ConfigurationError,
    ConnectionLost,
    Envelope,
    MailbridgeError,
    Mailer,
    NobodyListens,
    Reply,
    SMTPConfig,
)
from mailbridge.config.values import parse_logger
from mailbridge.logs import Log
from mailbridge.testing import Fault, ScriptedServer

# What every LogRecord has; the rest are our fields.
USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
BODY = b"Message-ID: <m1@x.example>\r\nSubject: Private\r\n\r\nnobody else's business\r\n"


class JSONFormatter(logging.Formatter):
    """As people have them: everything that is not usual on a record is a field."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in USUAL}
        return json.dumps(
            {"logger": record.name, "level": record.levelname, "message": record.getMessage(), **fields}
        )


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JSONFormatter())
        self.all: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(json.loads(self.format(record)))

    def of(self, action: str) -> list[dict[str, Any]]:
        return [line for line in self.all if line["action"] == action]

    def one(self, action: str) -> dict[str, Any]:
        (line,) = self.of(action)
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    """All that is logged, at every level, on whatever logger."""
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.setLevel(level)
    root.removeHandler(handler)


def mailer_for(server: ScriptedServer, **options: Any) -> Mailer:
    host = {"host": "127.0.0.1", "port": server.port, "security": "none", "timeout": 5}
    return Mailer(SMTPConfig.from_mapping({**host, **options}))


def envelope(*recipients: str) -> Envelope:
    return Envelope("ann@x.example", recipients or ("bob@y.example",))


def send(server: ScriptedServer, *recipients: str, **options: Any) -> None:
    """One message, whatever becomes of it."""
    with mailer_for(server, **options) as mailer, suppress(MailbridgeError):
        mailer.send(BODY, envelope=envelope(*recipients))


def test_a_message_that_is_sent(lines: Lines) -> None:
    with ScriptedServer(users={"u": "hunter2"}) as server:
        with mailer_for(server, username="u", password="hunter2") as mailer:
            result = mailer.send(BODY, envelope=envelope("bob@y.example", "eve@y.example"))
        name = f"127.0.0.1:{server.port}"
    sent = lines.one("message_sent")
    assert (sent["logger"], sent["level"]) == ("mailbridge", "INFO")
    assert 0 < sent.pop("seconds") < 60
    expected = {
        "server": name,
        "connection_id": result.connection_id,
        "message_id": "<m1@x.example>",
        "queue_id": result.queue_id,
        "size": result.message_size,
        "recipients": 2,
        "rejected": 0,
        "attempts": 1,
        "reused": False,
        "round_trips": result.round_trips,
        "code": 250,
    }
    assert expected.items() <= sent.items()
    opened, logged_in = lines.one("connection_opened"), lines.one("logged_in")
    assert (opened["level"], opened["server"], opened["address"]) == ("DEBUG", name, name)
    assert logged_in["mechanism"] in logged_in["message"]
    assert lines.one("connection_closed")["seconds"] >= 0
    assert lines.of("dialogue") == []  # only with debug
    assert {line["connection_id"] for line in lines.all} == {result.connection_id}
    assert {line["server"] for line in lines.all} == {name}


def test_the_second_message_on_a_connection(lines: Lines) -> None:
    with ScriptedServer() as server, mailer_for(server) as mailer:
        mailer.send(BODY, envelope=envelope())
        mailer.send(BODY, envelope=envelope())
    assert [line["reused"] for line in lines.of("message_sent")] == [False, True]
    assert len(lines.of("connection_opened")) == 1


def test_a_message_that_is_refused(lines: Lines) -> None:
    with ScriptedServer(rcpt_replies={"bob@y.example": "550 5.1.1 <bob@y.example> is unknown"}) as server:
        send(server)
    line = lines.one("message_not_sent")
    expected = {
        "level": "INFO",
        "error": "RecipientsRefused",
        "stage": "rcpt_to",
        "code": 550,
        "enhanced": "5.1.1",
        "message_id": "<m1@x.example>",
        "recipients": 1,
        "attempts": 1,
        "transient": False,
        "connection_id": lines.one("connection_opened")["connection_id"],
    }
    assert expected.items() <= line.items()
    assert lines.of("message_sent") == []


def test_a_message_that_may_have_been_taken_is_a_warning(lines: Lines) -> None:
    with ScriptedServer(faults=[Fault("final", "close")]) as server:
        send(server)
    line = lines.one("message_in_doubt")
    assert (line["level"], line["error"], line["message_id"]) == (
        "WARNING",
        "ConnectionLost",
        "<m1@x.example>",
    )
    assert lines.of("message_not_sent") == []


def test_a_recipient_that_is_refused_while_others_are_not(lines: Lines) -> None:
    with ScriptedServer(rcpt_replies={"eve@y.example": "550 5.1.1 who?"}) as server:
        send(server, "bob@y.example", "eve@y.example")
    line = lines.one("recipients_refused")
    assert (line["level"], line["recipients"], line["rejected"]) == ("WARNING", 1, 1)
    assert "eve@y.example: 550 5.1.1 who?" in line["message"]
    assert "bob@y.example" not in line["message"]
    assert lines.one("message_sent")["rejected"] == 1


def test_a_login_that_is_refused(lines: Lines) -> None:
    with ScriptedServer(users={"u": "other"}) as server:
        send(server, username="u", password="hunter2")
    failed = lines.one("connection_failed")
    assert (failed["level"], failed["stage"], failed["error"]) == ("INFO", "auth", "AuthenticationFailed")
    assert failed["connection_id"] == lines.one("connection_opened")["connection_id"]
    assert lines.one("connection_closed")["connection_id"] == failed["connection_id"]
    assert lines.one("message_not_sent")["error"] == "AuthenticationFailed"


def test_nobody_there(lines: Lines) -> None:
    with ScriptedServer() as server:
        pass
    with mailer_for(server) as mailer, pytest.raises(MailbridgeError):
        mailer.send(BODY, envelope=envelope())
    failed = lines.one("connection_failed")
    assert (failed["stage"], failed["error"], failed["server"]) == (
        "tcp",
        "NobodyListens",
        f"127.0.0.1:{server.port}",
    )
    assert lines.of("connection_closed") == []


def test_the_connection_of_another_server_is_not_named(lines: Lines) -> None:
    """The first is not there; the second is, but can't do what is asked. The error raised is the first's."""
    with ScriptedServer() as nobody:
        pass
    with ScriptedServer() as server:
        urls = [nobody.url, {"url": server.url, "priority": 2}]
        with Mailer(SMTPConfig(servers=urls)) as mailer, pytest.raises(NobodyListens):
            mailer.send(BODY, envelope=Envelope("ann@x.example", ["bob@y.example"], require_tls=True))
        assert lines.one("connection_opened")["server"] == f"127.0.0.1:{server.port}"
    line = lines.one("message_not_sent")
    assert line["server"] == f"127.0.0.1:{nobody.port}"
    assert "connection_id" not in line


def test_attempts(lines: Lines) -> None:
    fault = Fault("mail", "reply", reply="451 4.3.0 later")
    with ScriptedServer(faults=[fault]) as server:
        send(server, retry={"attempts": 2, "first_delay": 0.001})
    failed = lines.one("attempt_failed")
    assert (failed["level"], failed["attempts"], failed["code"], failed["stage"]) == (
        "WARNING",
        1,
        451,
        "mail_from",
    )
    assert failed["pause"] >= 0
    assert lines.one("message_sent")["attempts"] == 2


def test_a_session_that_died_while_it_was_idle(lines: Lines) -> None:
    with ScriptedServer() as server, mailer_for(server) as mailer:
        mailer.send(BODY, envelope=envelope())
        server.connections[-1].push(b"421 4.4.2 too long idle\r\n")
        mailer.send(BODY, envelope=envelope())
    unusable, retired = lines.one("connection_unusable"), lines.of("connection_retired")[0]
    first = lines.of("connection_opened")[0]["connection_id"]
    assert "too long idle" in unusable["reason"]
    assert unusable["logger"] == "mailbridge.pool"
    assert (unusable["connection_id"], retired["connection_id"]) == (first, first)


@pytest.mark.parametrize("batch", [False, True])
def test_an_interrupt_in_a_handler_does_not_make_a_sent_message_an_unsent_one(batch: bool) -> None:
    class Interrupting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise KeyboardInterrupt

    logger = logging.getLogger("interrupted")
    handler = Interrupting(level=logging.INFO)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with ScriptedServer() as server, mailer_for(server, logger=logger) as mailer:
            send_it = (
                partial(mailer.send_many, [(BODY, envelope())])
                if batch
                else partial(mailer.send, BODY, envelope=envelope())
            )
            with pytest.raises(KeyboardInterrupt) as caught:
                send_it()
            assert caught.value.outcome_unknown is True  # type: ignore[attr-defined]
            assert len(server.messages) == 1
    finally:
        logger.removeHandler(handler)


# ---- whose logger


@pytest.mark.parametrize("given", ["shop.mail", logging.getLogger("shop.mail")])
def test_a_logger_of_one_s_own(given: Any, lines: Lines) -> None:
    with ScriptedServer() as server, mailer_for(server, logger=given, debug=True) as mailer:
        mailer.send(BODY, envelope=envelope())
    assert {line["logger"] for line in lines.all} == {"shop.mail", "shop.mail.pool", "shop.mail.smtp"}
    assert lines.one("message_sent")["logger"] == "shop.mail"
    said = lines.of("dialogue")
    assert {line["logger"] for line in said} == {"shop.mail.smtp"}
    assert [line["side"] for line in said[:3]] == ["S", "C", "S"]
    assert len({line["connection_id"] for line in said}) == 1


def test_two_mailers_with_loggers_of_their_own(lines: Lines) -> None:
    with ScriptedServer() as server:
        send(server, logger="news")
        send(server, logger="shop")
    assert [line["logger"] for line in lines.of("message_sent")] == ["news", "shop"]


def test_the_option_is_part_of_a_configuration_that_travels() -> None:
    config = SMTPConfig(logger=logging.getLogger("shop.mail"))
    assert config == SMTPConfig(logger="shop.mail")
    assert hash(config) == hash(SMTPConfig(logger="shop.mail"))
    assert config != SMTPConfig()
    assert pickle.loads(pickle.dumps(config)).logger == "shop.mail"
    assert (SMTPConfig().logger, SMTPConfig(logger="").logger) == ("mailbridge", "mailbridge")
    assert SMTPConfig(logger=logging.getLogger()).logger == "root"


@pytest.mark.parametrize("given", [logging.Logger("by hand"), 7, True, "a\nb", print])
def test_what_is_no_logger_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="logger"):
        SMTPConfig(logger=given)


def test_the_root_logger_has_children_too(lines: Lines) -> None:
    log = Log(parse_logger(logging.getLogger()), "h:25")
    log.said("c1", "C", "NOOP")
    log.closed("c1", seconds=1)
    assert [line["logger"] for line in lines.all] == ["smtp", "root"]


LOST = ConnectionLost("Gone", stage="mail_from", server="b:25", reply=Reply(421, ("4.3.2 bye",), (4, 3, 2)))
OF_LOST = {
    "error": "ConnectionLost",
    "stage": "mail_from",
    "server": "b:25",
    "code": 421,
    "enhanced": "4.3.2",
}
ANN = {"user": "ann@x.example"}


@pytest.mark.parametrize(
    ("write", "level", "fields"),
    [
        (lambda log: log.failed_over(LOST, "c:25"), "WARNING", {"next_server": "c:25", **OF_LOST}),
        (lambda log: log.left_alone(LOST, 9.5), "WARNING", {"pause": 9.5, **OF_LOST}),
        (lambda log: log.works_again(), "INFO", {}),
        (lambda log: log.shrunk(2), "WARNING", {"pool_size": 2}),
        (lambda log: log.attempt_failed(LOST, 2, 1.5), "WARNING", {"attempts": 2, "pause": 1.5, **OF_LOST}),
        (lambda log: log.session_replaced(LOST, "c1"), "DEBUG", {"connection_id": "c1", **OF_LOST}),
        (lambda log: log.progress_failed(KeyError()), "WARNING", {"error": "KeyError"}),
        (lambda log: log.token_obtained("ann@x.example", 9.7), "INFO", {"expires_in": 10, **ANN}),
        (lambda log: log.token_obtained("ann@x.example", None), "INFO", ANN),
        (lambda log: log.token_not_renewed(LOST), "WARNING", OF_LOST),
        (lambda log: log.token_not_kept("ann@x.example"), "WARNING", ANN),
        (lambda log: log.on_refresh_failed(KeyError()), "WARNING", {"error": "KeyError"}),
    ],
)
def test_facts_of_the_rarer_lines(
    write: Callable[[Log], None], level: str, fields: dict[str, Any], lines: Lines
) -> None:
    write(Log("mailbridge", "a:25"))
    (line,) = lines.all
    told = {name: line[name] for name in line.keys() - {"logger", "level", "message", "action"}}
    assert line["level"] == level
    assert told == {"server": "a:25", **fields}


# ---- what no line shows

FAILURES = {
    "sent": {},
    "recipient": {"rcpt_replies": {"bob@y.example": "550 5.1.1 <bob@y.example> is unknown to us"}},
    "sender": {"faults": [Fault("mail", "reply", reply="553 5.7.1 <ann@x.example> may not send to us")]},
    "content": {
        "faults": [Fault("final", "reply", reply="554 5.7.1 mail to <bob@y.example> looks bad to us")]
    },
    "doubt": {"faults": [Fault("final", "close")]},
}


@pytest.mark.parametrize("what", FAILURES)
def test_no_address_and_no_words_of_the_server_at_info(what: str, lines: Lines) -> None:
    """Whoever keeps a transaction log keeps no personal data with it."""
    with ScriptedServer(**FAILURES[what]) as server:
        send(server, debug=True)
    kept = json.dumps([line for line in lines.all if line["level"] != "DEBUG"])
    assert "message_" in kept
    for private in ("bob", "ann", "to us", "Private", "business"):
        assert private not in kept
    assert "bob@y.example" in json.dumps(lines.of("dialogue"))


def test_the_content_is_in_no_line_at_all(lines: Lines) -> None:
    with ScriptedServer() as server, mailer_for(server, debug=True) as mailer:
        mailer.send(BODY, envelope=envelope())
    assert "business" not in json.dumps(lines.all)


def test_nobody_else_writes() -> None:
    """One place knows all lines, so that each has its action and fields, and none has what it must not."""
    package = Path(mailbridge.__file__).parent
    writers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"getLogger|import logging|logs\.write", path.read_text("utf-8"))
    }
    # The command line shows the dialogue; a configuration takes a Logger for its name.
    others = writers - {"logs.py", "cli/main.py", "config/options.py", "config/values.py"}
    # The receiving server has a journal of its own: docs/receiving.md.
    assert {path for path in others if not path.startswith(("server/", "inbox/"))} == set()


def documented(heading: str) -> list[list[str]]:
    """The rows of the table under a heading of docs/logging.md, cell by cell."""
    text = (Path(mailbridge.__file__).parent.parent / "docs" / "logging.md").read_text("utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if "| `" in line
    ]


def written() -> tuple[dict[str, set[str]], set[str]]:
    """The actions of logs.py with their levels, and its fields, as its source has them."""
    actions: dict[str, set[str]] = {}
    fields = {"action", "server"}
    package = Path(mailbridge.__file__).parent
    for path in (package / "logs.py", package / "pool" / "pool.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = (
                node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            )
            if name == "pooled":
                actions[node.args[0].value] = {"DEBUG"}
            elif name == "write":
                fields |= {keyword.arg for keyword in node.keywords if keyword.arg}
                found = [each.value for each in ast.walk(node.args[2]) if isinstance(each, ast.Constant)]
                levels = [each.attr for each in ast.walk(node.args[1]) if isinstance(each, ast.Attribute)]
                actions |= {action: {level} for action, level in zip(found, levels, strict=bool(found))}
    return actions, fields | {"server", "error", "stage", "code", "enhanced"}


def test_every_action_is_described_with_its_level() -> None:
    actions, _ = written()
    assert {row[0].strip("`"): {row[1]} for row in documented("Actions")} == actions


def test_every_field_is_described() -> None:
    _, fields = written()
    assert {name for row in documented("Fields") for name in re.findall(r"`(\w+)`", row[0])} == fields


def test_nothing_is_logged_at_error(lines: Lines) -> None:
    for what in FAILURES:
        with ScriptedServer(**FAILURES[what]) as server:
            send(server)
    assert {line["level"] for line in lines.all} <= {"DEBUG", "INFO", "WARNING"}
