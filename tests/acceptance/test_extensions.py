"""What each extension puts on the wire, byte by byte, after the RFCs' own examples where they have one.

A dialogue holds the client to every line that it says, and to nothing beyond it. What real servers make of
those extensions that they offer is tested in tests/integration/test_extensions.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from mailbridge import (
    ConnectionLost,
    Envelope,
    InvalidMessage,
    MailbridgeError,
    Mailer,
    Message,
    NotSupported,
    Recipient,
    RecipientsRefused,
    SMTPConnection,
    render,
)
from mailbridge.testing import ScriptedServer
from tests.acceptance.programs import options_for, server_over
from tests.acceptance.sending import config_for, mailer_for
from tests.servers.certificates import Certificates

CONTENT = b"Subject: x\r\n\r\n(message goes here)\r\n"
DATA = """
    C: DATA
    S: 354 okay, send message
    C: Subject: x
    C:
    C= (message goes here)
    C: .
    S: 250 message accepted
"""
NAME = {"local_hostname": "Example.ORG"}
QUIT = """
    C: QUIT
    S: 221 goodbye
"""


@contextmanager
def talking(*dialogues: str, **options: Any) -> Iterator[Mailer]:
    with ScriptedServer([each + QUIT for each in dialogues]) as server:
        options = {"local_hostname": "Example.ORG", "timeout": 5} | options
        with mailer_for(server, **options) as mailer:
            yield mailer


def opened(*keywords: str, window: str = "") -> str:
    """Greeting and EHLO of a server that offers these."""
    lines = ["mx.example", *keywords]
    offers = "\n".join(f"S: 250-{line}" for line in lines[:-1]) + f"\nS: 250 {lines[-1]}"
    return f"S: 220 mx.example ESMTP\nC= EHLO Example.ORG\n{offers}\n"


def exchange(*commands: str) -> str:
    """Each command, accepted."""
    return "\n".join(f"C= {command}\nS: 250 ok" for command in commands)


class TestDSN:
    def test_the_example_of_rfc_3461(self) -> None:
        """Section 10.1, Alice's submission, with every recipient of it."""
        dialogue = """
            S: 220 Example.ORG SMTP server here
            C= EHLO Example.ORG
            S: 250-Example.ORG
            S: 250-DSN
            S: 250-EXPN
            S: 250 SIZE
            C= MAIL FROM:<Alice@Example.ORG> RET=HDRS ENVID=QQ314159
            S: 250 <Alice@Example.ORG> sender ok
            C= RCPT TO:<Bob@Example.COM> NOTIFY=SUCCESS ORCPT=rfc822;Bob@Example.COM
            S: 250 <Bob@Example.COM> recipient ok
            C= RCPT TO:<Carol@Ivory.EDU> NOTIFY=FAILURE ORCPT=rfc822;Carol@Ivory.EDU
            S: 250 <Carol@Ivory.EDU> recipient ok
            C= RCPT TO:<Dana@Ivory.EDU> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Dana@Ivory.EDU
            S: 250 <Dana@Ivory.EDU> recipient ok
            C= RCPT TO:<Eric@Bombs.AF.MIL> NOTIFY=FAILURE ORCPT=rfc822;Eric@Bombs.AF.MIL
            S: 250 <Eric@Bombs.AF.MIL> recipient ok
            C= RCPT TO:<Fred@Bombs.AF.MIL> NOTIFY=NEVER
            S: 250 <Fred@Bombs.AF.MIL> recipient ok
            C= RCPT TO:<George@Tax-ME.GOV> NOTIFY=FAILURE ORCPT=rfc822;George@Tax-ME.GOV
            S: 250 <George@Tax-ME.GOV> recipient ok
        """
        envelope = Envelope(
            "Alice@Example.ORG",
            [
                Recipient("Bob@Example.COM", notify="SUCCESS"),
                "Carol@Ivory.EDU",
                Recipient("Dana@Ivory.EDU", notify=["SUCCESS", "FAILURE"]),
                "Eric@Bombs.AF.MIL",
                Recipient("Fred@Bombs.AF.MIL", notify="NEVER"),
                "George@Tax-ME.GOV",
            ],
            dsn={"ret": "HDRS", "envid": "QQ314159", "notify": "FAILURE"},
        )
        with talking(dialogue + DATA, disable=["size"]) as mailer:  # the RFC's client does not use SIZE
            assert len(mailer.send(CONTENT, envelope=envelope).accepted) == 6

    def test_a_forwarder_keeps_the_original_recipient(self) -> None:
        """RFC 3461 section 10.5."""
        dialogue = opened("DSN") + exchange(
            "MAIL FROM:<Alice@Example.ORG> RET=HDRS ENVID=QQ314159",
            "RCPT TO:<Sam@Boondoggle.GOV> NOTIFY=SUCCESS ORCPT=rfc822;George@Tax-ME.GOV",
        )
        delivery_options = {
            "ret": "HDRS",
            "envid": "QQ314159",
            "notify": "SUCCESS",
            "orcpt": "George@Tax-ME.GOV",
        }
        with talking(dialogue + DATA) as mailer:
            mailer.send(
                CONTENT, envelope=Envelope("Alice@Example.ORG", "Sam@Boondoggle.GOV", dsn=delivery_options)
            )

    def test_the_configuration_asks_where_the_message_does_not(self) -> None:
        default = {"ret": "HDRS", "notify": "FAILURE,DELAY", "envid": "message-id"}
        dialogue = opened("DSN")
        dialogue += exchange(
            "MAIL FROM:<a@x.example> RET=HDRS ENVID=1+2B1@x.example",
            "RCPT TO:<b@y.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;b@y.example",
        ) + DATA.replace("C: Subject: x", "C: Message-ID: <1.1@x.example>\nC: Subject: x")
        for parameters, address in (
            (("", " NOTIFY=NEVER"), "a@x.example"),
            (("", ""), "a@x.example"),
            (("", ""), ""),
        ):
            mail, rcpt = parameters
            dialogue += exchange(f"MAIL FROM:<{address}>{mail}", f"RCPT TO:<b@y.example>{rcpt}") + DATA
        with talking(dialogue, dsn=default) as mailer:
            with_id = b"Message-ID: <1+1@x.example>\r\n" + CONTENT
            mailer.send(with_id, envelope=Envelope("a@x.example", "b@y.example"))
            for sender, dsn in (("a@x.example", {"notify": "NEVER"}), ("a@x.example", {}), ("", None)):
                mailer.send(CONTENT, envelope=Envelope(sender, "b@y.example", dsn=dsn))

    def test_the_default_is_left_out_where_the_server_lacks_it(self) -> None:
        dialogue = opened("HELP") + exchange("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>")
        with talking(dialogue + DATA, dsn={"notify": "FAILURE"}) as mailer:
            mailer.send(CONTENT, envelope=Envelope("a@x.example", "b@y.example"))


class TestREQUIRETLS:
    # RFC 8689 appendix A.1
    WISHING = Envelope("roger@example.org", "editor@example.net", require_tls=True)

    def test_the_example_of_rfc_8689(self, certificates: Certificates) -> None:
        """The RFC's client pipelines nothing and uses no SIZE; its EHLO offers both."""
        dialogue = f"""
            S: 220 mail.example.net ESMTP
            C= EHLO mail.example.org
            S: 250-mail.example.net Hello example.org [192.0.2.1]
            S: 250-SIZE 52428800
            S: 250-8BITMIME
            S: 250-PIPELINING
            S: 250-STARTTLS
            S: 250 HELP
            C= STARTTLS
            S: 220 TLS go ahead
            ! tls
            C= EHLO mail.example.org
            S: 250-mail.example.net Hello example.org [192.0.2.1]
            S: 250-SIZE 52428800
            S: 250-8BITMIME
            S: 250-PIPELINING
            S: 250-REQUIRETLS
            S: 250 HELP
            C= MAIL FROM:<roger@example.org> REQUIRETLS
            S: 250 OK
            C= RCPT TO:<editor@example.net>
            S: 250 Accepted
            {DATA}
            {QUIT}
        """
        with server_over("tls1.3", certificates, dialogues=[dialogue]) as server:
            options = options_for(server, certificates, local_hostname="mail.example.org", disable=["size"])
            with Mailer(config_for(server, **options)) as mailer:
                assert mailer.send(CONTENT, envelope=self.WISHING).accepted

    @pytest.mark.parametrize(
        ("keywords", "verify", "why"),
        [
            (["8BITMIME"], True, "which the server does not offer"),
            (["REQUIRETLS"], False, "a verified certificate"),
        ],
    )
    def test_nothing_is_sent_without(
        self, certificates: Certificates, keywords: list[str], verify: bool, why: str
    ) -> None:
        with server_over("tls1.3", certificates, keywords=keywords) as server:
            tls = {"ca_file": str(certificates.ca_file)} if verify else {"verify": False}
            options = options_for(server, certificates, tls=tls)
            with Mailer(config_for(server, **options)) as mailer:
                with pytest.raises(NotSupported, match=why) as raised:
                    mailer.send(CONTENT, envelope=self.WISHING)
                assert raised.value.extension == "REQUIRETLS"
                assert said(server) == []
                preferring = Envelope("r@x.example", "e@x.example", require_tls=True, prefer="REQUIRETLS")
                assert mailer.send(CONTENT, envelope=preferring).accepted
                assert said(server)[0] == b"MAIL FROM:<r@x.example>"

    def test_clear_text_is_no_place_for_it(self) -> None:
        with ScriptedServer(keywords=["REQUIRETLS"]) as server, mailer_for(server) as mailer:
            with pytest.raises(NotSupported):
                mailer.send(CONTENT, envelope=self.WISHING)
            assert said(server) == []


def said(server: ScriptedServer) -> list[bytes]:
    """What clients said once the session was open."""
    return [
        line
        for connection in server.connections
        for line in connection.commands
        if not line.startswith((b"EHLO", b"STARTTLS", b"QUIT"))
    ]


class TestTimesAndPriorities:
    @pytest.mark.parametrize(
        ("keyword", "delivery_options", "parameter"),
        [
            # RFC 2852 section 4: by-time;by-mode[by-trace]
            ("DELIVERBY", {"deliver_by": {"seconds": 120, "mode": "R"}}, "BY=120;R"),
            ("DELIVERBY 240", {"deliver_by": {"seconds": 240, "mode": "R", "trace": True}}, "BY=240;RT"),
            ("DELIVERBY 240", {"deliver_by": 60}, "BY=60;N"),
            # RFC 4865 section 5: seconds, or a date-time of RFC 3339
            ("FUTURERELEASE 7862400 2030-02-15T22:00:00Z", {"send_at": 86400}, "HOLDFOR=86400"),
            (
                "FUTURERELEASE 7862400 2030-02-15T22:00:00Z",
                {"send_at": datetime(2030, 2, 14, 6, 30, tzinfo=UTC)},
                "HOLDUNTIL=2030-02-14T06:30:00Z",
            ),
            # RFC 6710 section 4.1
            ("MT-PRIORITY NSEP", {"mt_priority": 6}, "MT-PRIORITY=6"),
            ("MT-PRIORITY", {"mt_priority": -3}, "MT-PRIORITY=-3"),
        ],
    )
    def test_one_parameter_of_mail(
        self, keyword: str, delivery_options: dict[str, Any], parameter: str
    ) -> None:
        dialogue = opened(keyword) + exchange(
            f"MAIL FROM:<eljefe@bigbiz.example> {parameter}", "RCPT TO:<topbanana@other.example>"
        )
        envelope = Envelope("eljefe@bigbiz.example", "topbanana@other.example", **delivery_options)
        with talking(dialogue + DATA) as mailer:
            assert mailer.send(CONTENT, envelope=envelope).accepted

    @pytest.mark.parametrize(
        ("keywords", "delivery_options", "extension"),
        [
            (["DELIVERBY 240"], {"deliver_by": {"seconds": 239, "mode": "R"}}, "DELIVERBY"),
            (["HELP"], {"deliver_by": 60}, "DELIVERBY"),
            (["FUTURERELEASE 3600 2030-02-15T22:00:00Z"], {"send_at": 3601}, "FUTURERELEASE"),
            (
                ["FUTURERELEASE 3600 2030-02-15T22:00:00Z"],
                {"send_at": datetime(2030, 2, 15, 22, 0, 1, tzinfo=UTC)},
                "FUTURERELEASE",
            ),
            (["HELP"], {"send_at": 60}, "FUTURERELEASE"),
            (["HELP"], {"mt_priority": 1, "require": ["MT-PRIORITY"]}, "MT-PRIORITY"),
            (["HELP"], {"dsn": {"notify": "NEVER"}}, "DSN"),
            (["CHUNKING"], {"body": "binarymime"}, "BINARYMIME"),
            (["HELP"], {"body": "8bitmime"}, "8BITMIME"),
        ],
    )
    def test_refused_before_a_byte_is_sent_and_left_out_on_demand(
        self, keywords: list[str], delivery_options: dict[str, Any], extension: str
    ) -> None:
        with ScriptedServer(keywords=keywords) as server, mailer_for(server) as mailer:
            with pytest.raises(NotSupported) as raised:
                mailer.send(CONTENT, envelope=Envelope("a@x.example", "b@y.example", **delivery_options))
            assert (raised.value.extension, raised.value.outcome_unknown) == (extension, False)
            assert raised.value.server == mailer.config.server
            assert said(server) == []
            soft = {**delivery_options, "require": (), "prefer": [extension]}
            mailer.send(CONTENT, envelope=Envelope("a@x.example", "b@y.example", **soft))
            assert said(server)[:2] == [b"MAIL FROM:<a@x.example>", b"RCPT TO:<b@y.example>"]
            assert len(server.connections) == 1  # the refusal has cost nothing

    def test_another_server_may_have_what_the_first_lacks(self) -> None:
        with ScriptedServer(keywords=["HELP"]) as first, ScriptedServer(keywords=["DELIVERBY"]) as second:
            servers = [
                {"host": each.host, "port": each.port, "security": "none", "priority": number}
                for number, each in enumerate((first, second), 1)
            ]
            with mailer_for(first, host=None, port=None, security=None, servers=servers) as mailer:
                envelope = Envelope("a@x.example", "b@y.example", deliver_by=60)
                result = mailer.send(CONTENT, envelope=envelope)
            assert result.accepted
            assert said(first) == []
            assert said(second)[0] == b"MAIL FROM:<a@x.example> BY=60;N"


class TestBINARYMIME:
    def test_the_example_of_rfc_3030(self) -> None:
        """Section 4.2: the envelope is the RFC's; a small message goes in one chunk, every byte as it is."""
        content = b"Subject: x\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\xff\r\n.\r\nbare\nand\rlone"
        keywords = ["PIPELINING", "BINARYMIME", "CHUNKING"]
        recipients = ["gvaudre@cnri.reston.va.us", "jstewart@cnri.reston.va.us"]
        with ScriptedServer(keywords=keywords) as server, mailer_for(server) as mailer:
            envelope = Envelope("ned@ymir.claremont.edu", recipients, body="binarymime")
            result = mailer.send(content, envelope=envelope)
            assert result.message_size == len(content)
            assert said(server) == [
                b"MAIL FROM:<ned@ymir.claremont.edu> BODY=BINARYMIME",
                b"RCPT TO:<gvaudre@cnri.reston.va.us>",
                b"RCPT TO:<jstewart@cnri.reston.va.us>",
                b"BDAT %d LAST" % len(content),
            ]
            assert [message.content for message in server.messages] == [content]


class TestSMTPUTF8:
    def test_an_address_goes_as_utf_8(self) -> None:
        """RFC 6531 section 3.4; the report's address in ASCII, RFC 6533 section 3."""
        dialogue = opened("SMTPUTF8", "8BITMIME", "DSN") + exchange(
            "MAIL FROM:<dömmö@x.example> SMTPUTF8 RET=HDRS",
            r"RCPT TO:<grüße@y.example> ORCPT=utf-8;gr\x{FC}\x{DF}e@y.example",
        )
        with talking(dialogue + DATA) as mailer:
            envelope = Envelope("dömmö@x.example", "grüße@y.example", dsn={"ret": "HDRS"})
            assert mailer.send(CONTENT, envelope=envelope).accepted


class TestLIMITS:
    """RFC 9422: announced limits are kept, before the server has to say so."""

    EVERYBODY = ("a@x.example", "b@x.example", "c@y.example", "d@x.example", "e@z.example")

    def test_recipients_are_split_up_front(self) -> None:
        dialogue = opened("LIMITS RCPTMAX=2 MAILMAX=20") + "".join(
            exchange("MAIL FROM:<s@x.example>", *(f"RCPT TO:<{address}>" for address in group)) + DATA
            for group in (self.EVERYBODY[:2], self.EVERYBODY[2:4], self.EVERYBODY[4:])
        )
        dialogue = dialogue.replace("S: 250 message accepted", "S: 250 queued as FIRST", 1)
        with talking(dialogue) as mailer:
            result = mailer.send(CONTENT, envelope=Envelope("s@x.example", self.EVERYBODY))
        assert (result.accepted, result.rejected) == (self.EVERYBODY, {})
        assert result.response.text == "queued as FIRST"

    def test_each_recipient_keeps_its_parameters(self) -> None:
        dialogue = opened("LIMITS RCPTMAX=1", "DSN") + "".join(
            exchange("MAIL FROM:<s@x.example>", f"RCPT TO:<{address}> NOTIFY={word} ORCPT=rfc822;{address}")
            + DATA
            for address, word in (("a@x.example", "SUCCESS"), ("b@x.example", "DELAY"))
        )
        recipients = [Recipient("a@x.example", notify="SUCCESS"), Recipient("b@x.example", notify="DELAY")]
        with talking(dialogue) as mailer:
            assert len(mailer.send(CONTENT, envelope=Envelope("s@x.example", recipients)).accepted) == 2

    def test_one_domain_at_a_time(self) -> None:
        groups = (self.EVERYBODY[:2], self.EVERYBODY[2:3], self.EVERYBODY[3:4], self.EVERYBODY[4:])
        dialogue = opened("LIMITS RCPTDOMAINMAX=1") + "".join(
            exchange("MAIL FROM:<s@x.example>", *(f"RCPT TO:<{address}>" for address in group)) + DATA
            for group in groups
        )
        with talking(dialogue) as mailer:
            result = mailer.send(CONTENT, envelope=Envelope("s@x.example", self.EVERYBODY))
        assert result.accepted == self.EVERYBODY

    def test_all_or_none_is_refused(self) -> None:
        with ScriptedServer(keywords=["LIMITS RCPTMAX=2"]) as server:
            with (
                mailer_for(server, partial="all-or-none") as mailer,
                pytest.raises(InvalidMessage, match="3 transactions only"),
            ):
                mailer.send(CONTENT, envelope=Envelope("s@x.example", self.EVERYBODY))
            assert said(server) == []

    @pytest.mark.parametrize("refused", ["first", "second", "all"])
    def test_a_refused_group_does_not_stop_the_others(self, refused: str) -> None:
        no = {
            "first": self.EVERYBODY[:2],
            "second": self.EVERYBODY[2:4],
            "all": self.EVERYBODY,
        }[refused]
        replies = dict.fromkeys(no, "550 5.1.1 nobody")
        with (
            ScriptedServer(keywords=["LIMITS RCPTMAX=2", "PIPELINING"], rcpt_replies=replies) as server,
            mailer_for(server) as mailer,
        ):
            envelope = Envelope("s@x.example", self.EVERYBODY)
            if refused == "all":
                with pytest.raises(RecipientsRefused) as raised:
                    mailer.send(CONTENT, envelope=envelope)
                assert set(raised.value.rejected) == set(self.EVERYBODY)
                assert server.messages == ()
                return
            result = mailer.send(CONTENT, envelope=envelope)
            assert result.response.code == 250
            taken = [address for address in self.EVERYBODY if address not in no]
            assert (list(result.accepted), set(result.rejected)) == (taken, set(no))
            assert [a for message in server.messages for a in message.recipients] == taken

    def test_what_is_lost_after_the_first_group_is_told_and_not_sent_twice(self) -> None:
        dialogue = opened("LIMITS RCPTMAX=1") + exchange("MAIL FROM:<s@x.example>", "RCPT TO:<a@x.example>")
        dialogue += DATA + "\nC= MAIL FROM:<s@x.example>\n! close\n"
        with (
            ScriptedServer([dialogue]) as server,
            mailer_for(server, retry=3, **NAME) as mailer,
        ):
            envelope = Envelope("s@x.example", ["a@x.example", "b@x.example", "c@x.example"])
            result = mailer.send(CONTENT, envelope=envelope)
            assert result.accepted == ("a@x.example",)
            assert {a: r.code for a, r in result.rejected.items()} == {"b@x.example": 451, "c@x.example": 451}
            assert all(reply.is_transient for reply in result.rejected.values())
            assert len(server.connections) == 1

    def test_doubt_about_a_later_group_names_who_has_it(self) -> None:
        dialogue = opened("LIMITS RCPTMAX=1") + exchange("MAIL FROM:<s@x.example>", "RCPT TO:<a@x.example>")
        dialogue += DATA + exchange("MAIL FROM:<s@x.example>", "RCPT TO:<b@x.example>")
        dialogue += DATA.replace("S: 250 message accepted", "! close")
        with (
            ScriptedServer([dialogue]) as server,
            mailer_for(server, retry=3, **NAME) as mailer,
        ):
            envelope = Envelope("s@x.example", ["a@x.example", "b@x.example"])
            with pytest.raises(ConnectionLost, match=r"accepted before, for a@x\.example") as raised:
                mailer.send(CONTENT, envelope=envelope)
            assert raised.value.outcome_unknown
            assert raised.value.accepted == ("a@x.example",)

    def test_a_session_is_given_up_after_so_many_transactions(self) -> None:
        session = opened("LIMITS MAILMAX=2") + 2 * (
            exchange("MAIL FROM:<s@x.example>", "RCPT TO:<a@x.example>") + DATA
        )
        with talking(session, session) as mailer:
            for _ in range(4):
                assert mailer.send(CONTENT, envelope=Envelope("s@x.example", "a@x.example")).accepted
            assert (mailer.stats().opened_total, mailer.stats().idle) == (2, 0)

    def test_a_message_that_a_session_has_no_room_for_goes_on_a_fresh_one(self) -> None:
        one = exchange("MAIL FROM:<s@x.example>", "RCPT TO:<a@x.example>") + DATA
        two = one + exchange("MAIL FROM:<s@x.example>", "RCPT TO:<b@x.example>") + DATA
        offers = opened("LIMITS MAILMAX=2 RCPTMAX=1")
        with talking(offers + one, offers + two) as mailer, mailer.session() as session:
            session.send(CONTENT, envelope=Envelope("s@x.example", "a@x.example"))
            result = session.send(CONTENT, envelope=Envelope("s@x.example", ["a@x.example", "b@x.example"]))
        assert result.accepted == ("a@x.example", "b@x.example")

    def test_a_message_that_no_session_has_room_for_is_refused(self) -> None:
        with ScriptedServer(keywords=["LIMITS MAILMAX=2 RCPTMAX=1"]) as server, mailer_for(server) as mailer:
            with pytest.raises(InvalidMessage, match="needs 3 transactions, and the server takes 2"):
                mailer.send(CONTENT, envelope=Envelope("s@x.example", self.EVERYBODY[:3]))
            assert said(server) == []


def test_a_batch_keeps_each_message_to_its_own_options() -> None:
    """One that can't be sent leaves the session as it was."""
    with ScriptedServer(keywords=["DSN", "PIPELINING"]) as server, mailer_for(server) as mailer:
        outcomes = mailer.send_many(
            [
                (CONTENT, Envelope("a@x.example", "b@y.example", dsn={"notify": "NEVER"})),
                (CONTENT, Envelope("a@x.example", "b@y.example", deliver_by=5)),
                (CONTENT, Envelope("a@x.example", "b@y.example")),
            ]
        )
        kinds = [type(each) for each in outcomes]
        assert kinds[1] is NotSupported
        assert not any(isinstance(each, MailbridgeError) for each in (outcomes[0], outcomes[2]))
        rcpts = [line for line in said(server) if line.startswith(b"RCPT")]
        assert rcpts == [b"RCPT TO:<b@y.example> NOTIFY=NEVER", b"RCPT TO:<b@y.example>"]
        assert len(server.connections) == 1


def test_the_low_level_connection_takes_the_same_envelopes() -> None:
    with ScriptedServer(keywords=["DSN"]) as server:
        connection = SMTPConnection(config_for(server))
        connection.connect()
        envelope = Envelope("a@x.example", "b@y.example", dsn={"ret": "FULL", "notify": "NEVER"})
        connection.send(envelope, render(Message("x", "a@x.example", ["b@y.example"], text="x")))
        connection.quit()
        assert said(server)[:2] == [
            b"MAIL FROM:<a@x.example> RET=FULL",
            b"RCPT TO:<b@y.example> NOTIFY=NEVER",
        ]
