"""Commands in and out of order, hooks of every kind, logins: what is answered, and what is not lost."""

from __future__ import annotations

import asyncio
import base64
import functools
import threading
from typing import Any

import pytest

from mailbridge import Envelope, Mailer, Message, SMTPConfig
from mailbridge.server import ReceivedEnvelope, Reject, Session
from tests.receiving import MAIL, SECONDS, Caller, mailroom
from tests.servers.certificates import Certificates
from tests.servers.process import wait_until

pytestmark = pytest.mark.needs("aiosmtpd")

HOOKS = ["on_connect", "on_mail_from", "on_rcpt_to", "on_message"]
WHOLE = b"EHLO client.test\r\n" + MAIL + b"x\r\n.\r\nQUIT\r\n"
# What each hook's refusal does to the rest of WHOLE.
AFTER = {
    "on_connect": ["{}"],
    "on_mail_from": ["220", "250", "{}", "503", "503", "500", "500", "221"],
    "on_rcpt_to": ["220", "250", "250", "{}", "554", "500", "500", "221"],
    "on_message": ["220", "250", "250", "250", "354", "{}", "221"],
}


def whole_with(code: str, hook: str) -> list[str]:
    return [expected.format(code) for expected in AFTER[hook]]


class TestHooks:
    @pytest.mark.parametrize("kind", ["function", "coroutine", "partial", "object"])
    @pytest.mark.parametrize("hook", HOOKS)
    def test_a_refusal(self, hook: str, kind: str) -> None:
        class Callable:
            async def __call__(self, *_: object) -> None:
                raise Reject(550, "5.7.1 no")

        def refuse(*_: object) -> None:
            raise Reject(550, "5.7.1 no")

        async def refuse_later(*_: object) -> None:
            raise Reject(550, "5.7.1 no")

        kinds: dict[str, Any] = {
            "function": refuse,
            "coroutine": refuse_later,
            "partial": functools.partial(lambda *_: refuse_later()),
            "object": Callable(),
        }
        with mailroom(**{hook: kinds[kind]}) as room, Caller(room.port, WHOLE) as caller:
            replies = caller.replies()
            assert [reply[:3] for reply in replies] == whole_with("550", hook)
            assert "550 5.7.1 no" in replies
            assert room.mails == []
            assert room.records.of("refuse")[0].reply == "550 5.7.1 no"

    @pytest.mark.parametrize(
        "error", [ValueError("secret of the application"), SystemExit(1), KeyboardInterrupt()]
    )
    @pytest.mark.parametrize("hook", HOOKS)
    def test_a_failure(self, hook: str, error: BaseException) -> None:
        def fail(*_: object) -> None:
            raise error

        async def fail_later(*_: object) -> None:
            raise error

        for function in (fail, fail_later):
            with mailroom(**{hook: function}) as room, Caller(room.port, WHOLE) as caller:
                replies = caller.replies()
                assert [reply[:3] for reply in replies] == whole_with("451", hook)
                assert "secret" not in "".join(replies)
                (record,) = room.records.of("failure")
                assert record.levelname == "WARNING"
                assert record.hook == hook
                assert record.exc_info[1] is not None
                assert record.connection_id == room.records.of("connect")[0].connection_id

    @pytest.mark.parametrize("hook", HOOKS)
    @pytest.mark.parametrize("code", [421, 521])
    def test_a_refusal_that_ends_the_connection(self, hook: str, code: int) -> None:
        def refuse(*_: object) -> None:
            raise Reject(code, "no more")

        with mailroom(**{hook: refuse}) as room, Caller(room.port, WHOLE) as caller:
            codes = caller.codes()
            assert codes == whole_with(str(code), hook)[: len(codes)]
            assert codes[-1] == str(code)

    def test_what_they_are_told(self) -> None:
        told: list[Any] = []
        with (
            mailroom(
                on_mail_from=lambda session, sender, parameters: told.append((session, sender, parameters)),
                on_rcpt_to=lambda session, recipient: told.append((session, recipient)),
            ) as room,
            Caller(room.port) as caller,
        ):
            caller.hello()
            caller.ask(b"MAIL FROM:<> SIZE=3 body=8bitmime")
            caller.ask(b"RCPT TO:<one@d.example>")
            caller.ask(b"RCPT TO:<two@d.example>")
            caller.ask(b"DATA")
            caller.ask(b"x\r\n.")
            ((session, envelope, content),) = room.mails
            parameters = {"SIZE": "3", "BODY": "8bitmime"}
            assert told == [
                (session, "", parameters),
                (session, "one@d.example"),
                (session, "two@d.example"),
            ]
            assert envelope == ReceivedEnvelope(
                sender="", recipients=("one@d.example", "two@d.example"), parameters=parameters
            )
            assert (content, session.client_hostname, session.transactions) == (b"x\r\n", "client.test", 1)

    def test_the_acknowledgement_waits_for_the_hook(self) -> None:
        may_go_on = threading.Event()
        with mailroom(on_message=lambda *_: may_go_on.wait(SECONDS)) as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + b"x\r\n.\r\n")
            assert [caller.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
            caller.sock.settimeout(0.2)
            with pytest.raises(TimeoutError):
                caller.sock.recv(1)
            may_go_on.set()
            caller.sock.settimeout(SECONDS)
            assert caller.sock.recv(100).startswith(b"250 ")

    def test_a_slow_hook_holds_nobody_else(self) -> None:
        may_go_on = threading.Event()
        with mailroom(on_message=lambda *_: may_go_on.wait(SECONDS)) as room, Caller(room.port) as slow:
            slow.hello().send(MAIL + b"x\r\n.\r\n")
            with Caller(room.port) as other:
                other.hello()
                assert other.ask(b"QUIT").startswith("221 ")
            may_go_on.set()
            assert [slow.reply()[:3] for _ in range(4)] == ["250", "250", "354", "250"]

    @pytest.mark.parametrize("is_coroutine", [True, False])
    def test_a_client_that_has_gone_does_not_interrupt_a_hook(self, is_coroutine: bool) -> None:
        has_begun, may_go_on, has_ended = threading.Event(), threading.Event(), threading.Event()

        def store(*_: object) -> None:
            has_begun.set()
            may_go_on.wait(SECONDS)
            has_ended.set()

        async def store_later(*_: object) -> None:
            has_begun.set()
            while not may_go_on.is_set():
                await asyncio.sleep(0.01)
            has_ended.set()

        with mailroom(on_message=store_later if is_coroutine else store) as room:
            caller = Caller(room.port)
            caller.hello().send(MAIL + b"x\r\n.\r\n")
            assert has_begun.wait(SECONDS)
            (dialogue,) = room.dialogues
            caller.hang_up_hard()
            assert wait_until(dialogue.finished.is_set, SECONDS)
            assert room.records.of("close") == [], "the connection counts as long as its hook runs"
            assert room.reception._budget.lent > 0, "and its mail"
            may_go_on.set()
            assert has_ended.wait(SECONDS)
            room.wait_for("close")
            assert room.records.of("message"), "which has taken the mail"
            assert room.reception._budget.lent == 0

    def test_their_threads_are_bounded(self) -> None:
        lock, inside, most = threading.Lock(), [0], [0]
        may_go_on = threading.Event()

        def count(*_: object) -> None:
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            may_go_on.wait(SECONDS)
            with lock:
                inside[0] -= 1

        with mailroom(on_connect=count, hook_threads=2) as room:
            callers = [Caller(room.port) for _ in range(6)]
            assert wait_until(lambda: inside[0] == 2, SECONDS)
            may_go_on.set()
            for caller in callers:
                assert caller.reply().startswith("220 ")
                caller.close()
            assert most == [2]


class TestOrder:
    @pytest.mark.parametrize(
        ("commands", "codes"),
        [
            ([b"MAIL FROM:<a@b.example>"], ["503"]),
            ([b"EHLO"], ["501"]),
            ([b"EHLO two words"], ["501"]),
            ([b"EHLO " + b"x" * 300], ["501"]),
            ([b"HELO c", b"MAIL FROM:<a@b.example>"], ["250", "250"]),
            ([b"EHLO c", b"RCPT TO:<a@b.example>"], ["250", "503"]),
            ([b"EHLO c", b"DATA"], ["250", "503"]),
            ([b"EHLO c", b"MAIL FROM:<a@b.example>", b"DATA"], ["250", "250", "554"]),
            ([b"EHLO c", b"MAIL FROM:<>", b"MAIL FROM:<a@b.example>"], ["250", "250", "503"]),
            ([b"EHLO c", b"MAIL FROM:<>", b"RSET", b"MAIL FROM:<>"], ["250", "250", "250", "250"]),
            ([b"EHLO c", b"MAIL FROM:<>", b"EHLO c", b"MAIL FROM:<>"], ["250", "250", "250", "250"]),
            ([b"EHLO c", b"MAIL FROM:<>", b"RCPT TO:<>"], ["250", "250", "501"]),
            ([b"EHLO c", b"MAIL FROM:<>", b"RCPT TO:<a@b.example> NOTIFY=NEVER"], ["250", "250", "555"]),
            ([b"EHLO c", b"MAIL FROM:<> BODY=BINARYMIME"], ["250", "555"]),
            ([b"EHLO c", b"MAIL FROM:<> SIZE=x"], ["250", "555"]),
            ([b"EHLO c", b"MAIL FROM:<> SMTPUTF8=1"], ["250", "555"]),
            ([b"EHLO c", b"MAIL FROM:<> RET=HDRS"], ["250", "555"]),
            ([b"EHLO c", "MAIL FROM:<é@b.example>".encode()], ["250", "553"]),
            ([b"EHLO c", "MAIL FROM:<é@b.example> SMTPUTF8".encode()], ["250", "250"]),
            ([b"EHLO c", b"MAIL FROM:<\xff@b.example> SMTPUTF8"], ["250", "553"]),
            ([b"EHLO c", b"MAIL FROM:<>", b"RCPT TO:<postmaster>"], ["250", "250", "250"]),
            ([b"EHLO c", b"MAIL FROM:<>", b"RCPT TO:<a@b.example>", b"DATA x"], ["250", "250", "250", "501"]),
            ([b"EHLO c", b"STARTTLS"], ["250", "502"]),
            ([b"EHLO c", b"AUTH PLAIN"], ["250", "502"]),
            ([b"EHLO c", b"EXPN x"], ["250", "502"]),
            ([b"VRFY x"], ["252"]),
            ([b"HELP", b"HELP MAIL"], ["214", "214"]),
            ([b"noop", b"quit"], ["250", "221"]),
            ([b""], ["500"]),
        ],
    )
    def test_replies(self, commands: list[bytes], codes: list[str]) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.reply()
            assert [caller.ask(command)[:3] for command in commands] == codes

    def test_a_transaction_ends_with_its_mail_whatever_comes_of_it(self) -> None:
        with mailroom(max_message_size=10) as room, Caller(room.port) as caller:
            caller.hello().send(
                MAIL + b"x" * 30 + b"\r\n.\r\nRCPT TO:<a@b.example>\r\n" + MAIL + b"ok\r\n.\r\nQUIT\r\n"
            )
            assert caller.codes() == ["250", "250", "354", "552", "503", "250", "250", "354", "250", "221"]
            assert room.contents == [b"ok\r\n"]

    def test_the_last_reply_names_the_mail(self) -> None:
        with mailroom() as room, Caller(room.port) as caller:
            caller.hello().send(MAIL + b"x\r\n.\r\n" + MAIL + b"y\r\n.\r\n")
            replies = [caller.reply() for _ in range(8)]
            name = room.sessions[0].id
            assert [replies[3], replies[7]] == [f"250 2.0.0 OK: queued as {name}.{n}" for n in (1, 2)]


def plain(user: str, password: str) -> bytes:
    return base64.b64encode(f"\0{user}\0{password}".encode())


class TestLogins:
    @pytest.fixture(params=["mapping", "function", "coroutine"])
    def auth(self, request: pytest.FixtureRequest) -> Any:
        def check(user: str, password: str) -> bool:
            return (user, password) == ("ann", "päss")

        async def check_later(user: str, password: str) -> bool:
            return check(user, password)

        return {"mapping": {"ann": "päss", "bob": ""}, "function": check, "coroutine": check_later}[
            request.param
        ]

    @pytest.mark.parametrize(
        ("user", "password", "code"),
        [
            ("ann", "päss", "235"),
            ("ann", "posse", "535"),
            ("ann", "", "535"),
            ("bob", "", "535"),
            ("eve", "päss", "535"),
            ("", "", "535"),
        ],
    )
    def test_plain_and_login(self, auth: Any, user: str, password: str, code: str) -> None:
        with mailroom(auth=auth, allow_insecure_auth=True) as room:
            words = [base64.b64encode(word.encode()) for word in (user, password)]
            for lines in ([b"AUTH PLAIN " + plain(user, password)], [b"auth login", *words]):
                with Caller(room.port) as caller:
                    caller.hello()
                    replies = [caller.ask(line) for line in lines]
                    assert replies[-1][:3] == code
                    assert room.sessions[-1].user == (user if code == "235" else None)
            if password:
                assert all(password not in record.getMessage() for record in room.records.all)

    def test_mail_is_for_who_is_logged_in(self, auth: Any) -> None:
        with mailroom(auth=auth, allow_insecure_auth=True) as room, Caller(room.port) as caller:
            caller.hello()
            assert caller.ask(b"MAIL FROM:<a@b.example>").startswith("530 5.7.0")
            caller.ask(b"AUTH PLAIN " + plain("ann", "päss"))
            caller.send(MAIL.replace(b"example>", b"example> AUTH=<>", 1) + b"x\r\n.\r\n")
            assert [caller.reply()[:3] for _ in range(4)] == ["250", "250", "354", "250"]
            assert room.mails[0][0].user == "ann"
            assert caller.ask(b"AUTH PLAIN " + plain("ann", "päss")).startswith("503 ")

    def test_unless_logins_are_for_who_likes(self, auth: Any) -> None:
        with (
            mailroom(auth=auth, allow_insecure_auth=True, require_auth=False) as room,
            Caller(room.port) as caller,
        ):
            caller.hello()
            assert caller.ask(b"MAIL FROM:<a@b.example>").startswith("250 ")
            assert caller.ask(b"AUTH PLAIN " + plain("ann", "päss")).startswith("503 "), "not within a mail"

    def test_only_over_tls(self, auth: Any, certificates: Certificates) -> None:
        tls = {"cert_file": certificates.good.cert_file, "key_file": certificates.good.key_file}
        with mailroom(auth=auth, tls=tls) as room, Caller(room.port) as caller:
            caller.reply()
            assert "AUTH" not in caller.ask(b"EHLO client.test")
            assert caller.ask(b"AUTH PLAIN " + plain("ann", "päss")).startswith("538 ")
            caller.ask(b"STARTTLS")
            caller.start_tls(str(certificates.ca_file))
            assert "AUTH PLAIN LOGIN" in caller.ask(b"EHLO client.test")
            assert caller.ask(b"AUTH PLAIN " + plain("ann", "päss")).startswith("235 ")

    def test_guessing_ends_soon(self, auth: Any) -> None:
        with mailroom(auth=auth, allow_insecure_auth=True) as room, Caller(room.port) as caller:
            caller.hello().send(b"AUTH PLAIN " + plain("ann", "x") + b"\r\n")
            caller.send((b"AUTH PLAIN " + plain("ann", "x") + b"\r\n") * 10)
            assert caller.codes() == ["535", "535", "421"]

    @pytest.mark.parametrize(
        "line",
        [
            b"AUTH",
            b"AUTH CRAM-MD5",
            b"AUTH PLAIN !!!",
            b"AUTH PLAIN " + base64.b64encode(b"no separators"),
            b"AUTH PLAIN " + base64.b64encode(b"\0a\0b\0c"),
            b"AUTH PLAIN " + base64.b64encode(b"\0\xff\0\xff"),
            b"AUTH PLAIN a b",
            b"AUTH LOGIN !!!",
        ],
    )
    def test_what_is_no_login(self, line: bytes) -> None:
        with mailroom(auth={"u": "p"}, allow_insecure_auth=True) as room, Caller(room.port) as caller:
            caller.hello()
            assert caller.ask(line)[:1] == "5"
            assert caller.ask(b"AUTH PLAIN " + plain("u", "p")).startswith("235 ")

    @pytest.mark.parametrize("answer", [b"*", b"!!!", b"x" * 3000])
    def test_an_exchange_that_goes_wrong(self, answer: bytes) -> None:
        with mailroom(auth={"u": "p"}, allow_insecure_auth=True) as room, Caller(room.port) as caller:
            caller.hello()
            assert caller.ask(b"AUTH LOGIN").startswith("334 ")
            assert caller.ask(answer)[:1] in "35"

    def test_a_check_that_fails(self) -> None:
        def fail(user: str, password: str) -> bool:
            raise ConnectionError(f"no database for {user}")

        with mailroom(auth=fail, allow_insecure_auth=True) as room, Caller(room.port) as caller:
            caller.hello()
            assert caller.ask(b"AUTH PLAIN " + plain("u", "sesame-9")) == (
                "454 4.7.0 Logins are not possible at the moment"
            )
            (record,) = room.records.of("failure")
            frame = record.exc_info[1].__traceback__
            while frame is not None:
                assert "sesame-9" not in repr(frame.tb_frame.f_locals)
                frame = frame.tb_next

    def test_the_hook_has_the_last_word(self) -> None:
        told: list[tuple[Session, str]] = []

        def only_ann(session: Session, user: str) -> None:
            told.append((session, user))
            if user != "ann":
                raise Reject(535, "5.7.8 not you")

        with (
            mailroom(auth={"ann": "p", "bob": "p"}, allow_insecure_auth=True, on_auth=only_ann) as room,
            Caller(room.port) as caller,
        ):
            caller.hello()
            assert caller.ask(b"AUTH PLAIN " + plain("bob", "p")) == "535 5.7.8 not you"
            assert caller.ask(b"AUTH PLAIN " + plain("ann", "wrong")).startswith("535 ")
            assert room.sessions[0].user is None
            assert caller.ask(b"AUTH PLAIN " + plain("ann", "p")).startswith("235 ")
            assert told == [(room.sessions[0], "bob"), (room.sessions[0], "ann")]


class TestOurOwnClient:
    @pytest.mark.parametrize("security", ["none", "starttls", "tls"])
    def test_every_kind_of_security(self, security: str, certificates: Certificates) -> None:
        tls = {"cert_file": certificates.good.cert_file, "key_file": certificates.good.key_file}
        options: dict[str, Any] = {"tls": tls, "auth": {"ann": "sesame"}} if security != "none" else {}
        options |= {"implicit_tls": security == "tls", "require_starttls": security == "starttls"}
        login = {"username": "ann", "password": "sesame"} if security != "none" else {}
        message = Message(
            subject="Grüße",
            sender="ann@a.example",
            to=["bob@b.example"],
            text="Hällo.\n.\n",
            bcc=["eve@e.example"],
        )
        with mailroom(**options) as room:
            config = SMTPConfig(
                host="localhost",
                port=room.port,
                security=security,
                tls={"ca_file": certificates.ca_file},
                **login,
            )
            with Mailer(config) as mailer:
                results = [mailer.send(message) for _ in range(2)]
            assert [result.queue_id for result in results] == [f"{room.sessions[0].id}.{n}" for n in (1, 2)]
            assert results[1].connection_reused
            (session, envelope, content), _ = room.mails
            assert envelope.recipients == ("bob@b.example", "eve@e.example")
            assert (session.tls is not None) == (security != "none")
            assert session.user == login.get("username")
            assert b"\r\n.\r\n" in content

    def test_starttls_is_demanded(self, certificates: Certificates) -> None:
        tls = {"cert_file": certificates.good.cert_file, "key_file": certificates.good.key_file}
        with mailroom(tls=tls, require_starttls=True) as room, Caller(room.port) as caller:
            caller.hello()
            assert caller.ask(b"MAIL FROM:<a@b.example>").startswith("530 ")
            assert room.mails == []

    def test_a_mail_of_some_size(self) -> None:
        content = b"".join(b".%d %s\r\n" % (number, b"x" * (number % 980)) for number in range(5000))
        with mailroom() as room:
            with Mailer(SMTPConfig(host="localhost", port=room.port, security="none")) as mailer:
                mailer.send(
                    b"Subject: x\r\n\r\n" + content, envelope=Envelope("a@b.example", ["c@d.example"])
                )
            assert room.contents[0].endswith(content)
