"""What is said of a message to a server that offers this and that, what is refused, and what replies mean."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.client.parameters import ALLOWANCES
from mailbridge.client.plan import mail_parameters, recipient_groups, recipient_parameters
from mailbridge.errors import InvalidMessage, MessageTooLarge, NotSupported
from mailbridge.message.delivery_options import DSN, DeliverBy, Recipient
from mailbridge.message.envelope import Envelope
from mailbridge.rendering.render import Rendered, render
from mailbridge.reply import Reply
from mailbridge.smtp.capabilities import Capabilities

ASCII = render(b"Subject: x\r\nMessage-ID: <1@x>\r\n\r\nhello\r\n")
EIGHT_BIT = render("Subject: x\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngrüße\r\n".encode())
UTF8 = render("Subject: grüße\r\n\r\nhello\r\n".encode())
BINARY = render(b"Subject: x\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\n\r", binary=True)
LATEST = datetime(2030, 1, 2, tzinfo=UTC)


def server(*lines: str) -> Capabilities:
    return Capabilities.parse(Reply(250, ("mx.example", *lines)))


def envelope(sender: str = "a@x", **delivery_options: Any) -> Envelope:
    return Envelope(sender, ["b@y"], **delivery_options)


def said(
    capabilities: Capabilities,
    message: Rendered = ASCII,
    *,
    is_verified: bool = False,
    **delivery_options: Any,
) -> list[str]:
    return mail_parameters(envelope(**delivery_options), message, capabilities, is_verified=is_verified)[1]


def refused(extension: str, *arguments: Any, **options: Any) -> NotSupported:
    with pytest.raises(NotSupported) as raised:
        said(*arguments, **options)
    error = raised.value
    assert (error.extension, error.stage, error.outcome_unknown) == (extension, "mail_from", False)
    assert not error.is_transient
    return error


class TestBodies:
    def test_nothing_is_said_where_nothing_is_to_be_said(self) -> None:
        assert said(server("8BITMIME", "SMTPUTF8", "DSN", "REQUIRETLS", "MT-PRIORITY", "BINARYMIME")) == []
        assert said(server(), body="7bit") == []

    def test_eight_bit(self) -> None:
        assert said(server("8BITMIME"), EIGHT_BIT) == ["BODY=8BITMIME"]
        made, parameters = mail_parameters(envelope(), EIGHT_BIT, server())
        assert (made.is_eight_bit, parameters) == (False, [])
        made, parameters = mail_parameters(envelope(body="7bit"), EIGHT_BIT, server("8BITMIME"))
        assert (made.is_eight_bit, parameters) == (False, [])

    def test_eight_bit_on_demand(self) -> None:
        """Nodemailer's use8BitMime says so of every message."""
        assert said(server("8BITMIME"), body="8bitmime") == ["BODY=8BITMIME"]
        refused("8BITMIME", server(), body="8bitmime")
        assert said(server(), body="8bitmime", prefer="8BITMIME") == []

    def test_seven_bit_that_is_impossible(self) -> None:
        with pytest.raises(InvalidMessage, match=r"7bit.*The header fields hold raw UTF-8"):
            said(server("8BITMIME", "SMTPUTF8"), UTF8, body="7bit")

    def test_smtputf8_is_needed_or_not(self) -> None:
        assert said(server("SMTPUTF8", "8BITMIME"), UTF8) == ["SMTPUTF8", "BODY=8BITMIME"]
        error = refused("SMTPUTF8", server("8BITMIME"), UTF8)
        assert error.message.startswith("A header field needs SMTPUTF8")
        assert "The address ü@x needs SMTPUTF8" in refused("SMTPUTF8", server(), sender="ü@x").message
        with pytest.raises(NotSupported, match="The address grüße@y needs SMTPUTF8"):
            mail_parameters(Envelope("a@x", ["b@y", "grüße@y"]), ASCII, server("8BITMIME"))

    @pytest.mark.parametrize(
        ("lines", "missing"),
        [(["BINARYMIME"], "CHUNKING"), (["CHUNKING", "8BITMIME"], "BINARYMIME"), ([], "BINARYMIME")],
    )
    def test_binary_needs_both_extensions(self, lines: list[str], missing: str) -> None:
        refused(missing, server(*lines), body="binarymime")
        refused(missing, server(*lines), BINARY)
        bare = render(b"Subject: x\r\n\r\na\nb\r\n", binary=True)
        for message in (BINARY, bare):  # these can't go otherwise
            refused(missing, server(*lines), message, prefer=["BINARYMIME"])
        assert said(server(*lines), body="binarymime", prefer=["BINARYMIME"]) == []
        in_name = render(ASCII.content, binary=True)
        made, parameters = mail_parameters(envelope(prefer="BINARYMIME"), in_name, server(*lines))
        assert (made, parameters) == (ASCII, [])

    def test_binary(self) -> None:
        offers = server("BINARYMIME", "CHUNKING", "SIZE 1000")
        assert said(offers, BINARY) == ["BODY=BINARYMIME", f"SIZE={len(BINARY.content)}"]  # type: ignore[arg-type]
        made, parameters = mail_parameters(envelope(body="binarymime"), ASCII, offers)
        assert parameters[0] == "BODY=BINARYMIME"
        assert made.is_binary


class TestSizes:
    def test_it_is_exact(self) -> None:
        size = len(ASCII.content)  # type: ignore[arg-type]
        for line in ("SIZE", "SIZE 0", "SIZE x", f"SIZE {size}"):
            assert said(server(line)) == [f"SIZE={size}"]
        assert said(server()) == []

    def test_too_large(self) -> None:
        limit = ASCII.size - 1
        with pytest.raises(
            MessageTooLarge, match=f"has {ASCII.size} bytes, .* no more than {limit}"
        ) as raised:
            said(server(f"SIZE {limit}"))
        error = raised.value
        assert (error.size, error.limit, error.stage) == (ASCII.size, limit, "mail_from")
        assert not error.is_transient
        assert said(server(f"SIZE {limit}").without(["size"])) == []

    def test_what_counts_is_what_is_sent(self) -> None:
        """Made 7-bit, the message is longer."""
        limit = EIGHT_BIT.size
        assert said(server("8BITMIME", f"SIZE {limit}"), EIGHT_BIT)
        with pytest.raises(MessageTooLarge):
            said(server(f"SIZE {limit}"), EIGHT_BIT)


class TestWishes:
    @pytest.mark.parametrize(
        ("extension", "delivery_options", "parameters"),
        [
            ("DSN", {"dsn": {"ret": "FULL", "envid": "7"}}, ["RET=FULL", "ENVID=7"]),
            ("DSN", {"dsn": {"envid": "message-id"}}, ["ENVID=1@x"]),
            ("DELIVERBY", {"deliver_by": {"seconds": 120, "mode": "R"}}, ["BY=120;R"]),
            ("FUTURERELEASE", {"send_at": 60}, ["HOLDFOR=60"]),
            ("FUTURERELEASE", {"send_at": LATEST}, ["HOLDUNTIL=2030-01-02T00:00:00Z"]),
            ("REQUIRETLS", {"require_tls": True}, ["REQUIRETLS"]),
            ("MT-PRIORITY", {"mt_priority": 3, "require": ["MT-PRIORITY"]}, ["MT-PRIORITY=3"]),
            ("MT-PRIORITY", {"mt_priority": 0, "require": ["MT-PRIORITY"]}, ["MT-PRIORITY=0"]),
        ],
    )
    def test_said_refused_or_left_out(
        self, extension: str, delivery_options: dict[str, Any], parameters: list[str]
    ) -> None:
        assert said(server(extension), is_verified=True, **delivery_options) == parameters
        assert extension in refused(extension, server(), is_verified=True, **delivery_options).message
        delivery_options.pop("require", None)
        assert said(server(), is_verified=True, prefer=[extension], **delivery_options) == []
        assert said(server(extension), is_verified=True, prefer=[extension], **delivery_options) == parameters

    def test_the_way_out_is_told(self) -> None:
        assert 'prefer=("DSN",)' in refused("DSN", server(), dsn={"ret": "HDRS"}).hint
        error = refused("MT-PRIORITY", server(), mt_priority=1, require="MT-PRIORITY")
        assert "require" in error.hint

    def test_a_priority_is_only_preferred(self) -> None:
        assert said(server(), mt_priority=9) == []
        assert said(server("MT-PRIORITY NSEP"), mt_priority=-9) == ["MT-PRIORITY=-9"]

    def test_the_order_of_all_of_them(self) -> None:
        offers = server("DSN", "REQUIRETLS", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY", "SIZE", "8BITMIME")
        assert said(
            offers,
            EIGHT_BIT,
            is_verified=True,
            dsn={"ret": "HDRS", "envid": "7"},
            require_tls=True,
            deliver_by=5,
            send_at=6,
            mt_priority=7,
        ) == [
            *("BODY=8BITMIME", f"SIZE={EIGHT_BIT.size}", "REQUIRETLS", "RET=HDRS", "ENVID=7", "BY=5;N"),
            *("HOLDFOR=6", "MT-PRIORITY=7"),
        ]

    def test_requiretls_needs_a_verified_certificate(self) -> None:
        error = refused("REQUIRETLS", server("REQUIRETLS"), require_tls=True)
        assert "verified certificate" in error.message
        assert said(server("REQUIRETLS"), require_tls=True, prefer="REQUIRETLS") == []

    @pytest.mark.parametrize("lines", [["REQUIRETLS"], []])
    @pytest.mark.parametrize("is_verified", [True, False])
    def test_a_bounce_is_not_lost_for_want_of_requiretls(self, lines: list[str], is_verified: bool) -> None:
        expected = ["REQUIRETLS"] if lines and is_verified else []
        assert said(server(*lines), is_verified=is_verified, sender="", require_tls=True) == expected

    def test_requiretls_brings_headers_back_alone(self) -> None:
        """RFC 8689 section 5."""
        offers = server("REQUIRETLS", "DSN")
        parameters = said(offers, is_verified=True, require_tls=True, dsn={"ret": "FULL"})
        assert parameters == ["REQUIRETLS", "RET=HDRS"]
        assert said(offers, is_verified=True, dsn={"ret": "FULL"}) == ["RET=FULL"]

    def test_the_least_time_for_delivery(self) -> None:
        offers = server("DELIVERBY 240")
        assert said(offers, deliver_by=DeliverBy(240, "R")) == ["BY=240;R"]
        assert said(offers, deliver_by=DeliverBy(1, "N")) == ["BY=1;N"]  # the minimum is for R alone
        error = refused("DELIVERBY", offers, deliver_by=DeliverBy(239, "R"))
        assert "239" in error.message
        assert "240" in error.message
        assert said(offers, deliver_by=DeliverBy(239, "R"), prefer="DELIVERBY") == []

    def test_how_long_messages_are_held(self) -> None:
        offers = server("FUTURERELEASE 86400 2030-01-02T00:00:00Z")
        assert said(offers, send_at=86400) == ["HOLDFOR=86400"]
        assert said(offers, send_at=LATEST) == ["HOLDUNTIL=2030-01-02T00:00:00Z"]
        assert "86400" in refused("FUTURERELEASE", offers, send_at=86401).message
        later = LATEST.replace(second=1)
        assert "until 2030-01-02 00:00:00 UTC" in refused("FUTURERELEASE", offers, send_at=later).message
        assert said(offers, send_at=later, prefer="FUTURERELEASE") == []

    def test_a_command_that_is_too_long(self) -> None:
        sender = f"{'x' * 250}@{'.'.join(['y' * 60] * 4)}.example"
        assert said(server("SIZE"), sender=sender)
        with pytest.raises(InvalidMessage, match="servers take 512"):
            said(server(), sender=f"{'x' * 256}@{'.'.join(['y' * 60] * 4)}.example")


class TestReportsOfRecipients:
    # RFC 3461 section 10.1
    ALICE = Envelope(
        "Alice@Example.ORG",
        [
            Recipient("Bob@Example.COM", notify="SUCCESS"),
            "Carol@Ivory.EDU",
            Recipient("Fred@Bombs.AF.MIL", notify="NEVER"),
        ],
        dsn=DSN(ret="HDRS", envid="QQ314159", notify="FAILURE"),
    )

    def test_each_has_its_own(self) -> None:
        assert recipient_parameters(self.ALICE, server("DSN")) == {
            "Bob@Example.COM": ["NOTIFY=SUCCESS", "ORCPT=rfc822;Bob@Example.COM"],
            "Carol@Ivory.EDU": ["NOTIFY=FAILURE", "ORCPT=rfc822;Carol@Ivory.EDU"],
            "Fred@Bombs.AF.MIL": ["NOTIFY=NEVER"],
        }

    @pytest.mark.parametrize("dsn", [None, DSN()])
    def test_nobody_asks(self, dsn: DSN | None) -> None:
        assert recipient_parameters(envelope(dsn=dsn), server("DSN")) == {}
        assert recipient_parameters(envelope(dsn=dsn), server()) == {}

    def test_one_recipient_asks(self) -> None:
        wishing = Envelope("a@x", [Recipient("b@y", notify="DELAY"), "c@y"])
        found = recipient_parameters(wishing, server("DSN"))
        assert found == {
            "b@y": ["NOTIFY=DELAY", "ORCPT=rfc822;b@y"],
            "c@y": ["ORCPT=rfc822;c@y"],
        }
        with pytest.raises(NotSupported, match="dsn needs DSN"):
            recipient_parameters(wishing, server())

    def test_the_original_recipient(self) -> None:
        assert recipient_parameters(envelope(dsn={"orcpt": "l@z"}), server("DSN")) == {
            "b@y": ["ORCPT=rfc822;l@z"]
        }

    def test_left_out_where_it_is_preferred(self) -> None:
        assert recipient_parameters(envelope(dsn={"ret": "HDRS"}, prefer="DSN"), server()) == {}

    def test_a_command_that_is_too_long(self) -> None:
        local, domain = "x" * 256, ".".join(["y" * 61] * 4)
        for dsn in (None, {"notify": "NEVER"}):
            recipient_parameters(Envelope("a@x", ["b@y", f"{local[:-13]}@{domain}"], dsn=dsn), server("DSN"))
            with pytest.raises(InvalidMessage, match="servers take 512") as raised:
                recipient_parameters(Envelope("a@x", ["b@y", f"{local}@{domain}"], dsn=dsn), server("DSN"))
            assert raised.value.stage == "rcpt_to"


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=31),
    st.text(st.characters(min_codepoint=33, exclude_categories=["C", "Z"]), min_size=1, max_size=40),
    st.sampled_from(["NEVER", "SUCCESS", "success,delay", ["FAILURE"]]),
    st.integers(-9, 9),
    st.integers(1, 10**9 - 1),
)
def test_whatever_is_asked_for_it_is_printable_words(
    envid: str, orcpt: str, notify: Any, mt_priority: int, seconds: int
) -> None:
    offers = server("DSN", "MT-PRIORITY", "DELIVERBY", "FUTURERELEASE", "SIZE")
    dsn = {"envid": envid, "notify": notify, "orcpt": f"utf-8;{orcpt}", "ret": "FULL"}
    wishing = envelope(dsn=dsn, mt_priority=mt_priority, deliver_by=seconds, send_at=seconds)
    words = mail_parameters(wishing, ASCII, offers)[1] + recipient_parameters(wishing, offers)["b@y"]
    assert [word.partition("=")[0] for word in words] == [
        *("SIZE", "RET", "ENVID", "BY", "HOLDFOR", "MT-PRIORITY", "NOTIFY", "ORCPT")
    ]
    for word in words:
        assert len(f" {word}") <= ALLOWANCES[word.partition("=")[0]]
        assert set(word) <= set(map(chr, range(33, 127)))
        assert word.count("=") == 1


class TestGroups:
    RECIPIENTS = ("a@x", "b@X", "c@y", "d@x", "e@z")

    def groups(self, *limits: str, all_or_none: bool = False) -> list[tuple[str, ...]]:
        given = Envelope("s@x", self.RECIPIENTS)
        line = ["LIMITS " + " ".join(limits)] if limits else []
        return recipient_groups(given, server(*line), all_or_none=all_or_none)

    def test_without_limits_there_is_one(self) -> None:
        assert self.groups() == self.groups("MAILMAX=1") == [self.RECIPIENTS]
        assert self.groups("RCPTMAX=5", all_or_none=True) == [self.RECIPIENTS]

    def test_so_many_recipients(self) -> None:
        assert self.groups("RCPTMAX=2") == [("a@x", "b@X"), ("c@y", "d@x"), ("e@z",)]

    def test_so_many_domains(self) -> None:
        assert self.groups("RCPTDOMAINMAX=1") == [("a@x", "b@X"), ("c@y",), ("d@x",), ("e@z",)]
        assert self.groups("RCPTDOMAINMAX=2") == [("a@x", "b@X", "c@y", "d@x"), ("e@z",)]
        assert self.groups("RCPTMAX=3", "RCPTDOMAINMAX=2") == [("a@x", "b@X", "c@y"), ("d@x", "e@z")]

    def test_all_or_none_can_not_be_split(self) -> None:
        with pytest.raises(InvalidMessage, match=r"in 3 transactions only \(RCPTMAX=2\)") as raised:
            self.groups("RCPTMAX=2", all_or_none=True)
        assert raised.value.stage == "rcpt_to"

    @given(
        st.lists(st.tuples(st.integers(0, 30), st.sampled_from("uvwxyz")), min_size=1),
        st.integers(1, 9),
        st.integers(1, 4),
    )
    def test_whatever_the_limits(self, given: list[tuple[int, str]], most: int, domains: int) -> None:
        everybody = Envelope("s@x", [f"{local}@{domain}" for local, domain in given])
        offers = server(f"LIMITS RCPTMAX={most} RCPTDOMAINMAX={domains}")
        groups = recipient_groups(everybody, offers, all_or_none=False)
        assert [address for group in groups for address in group] == list(everybody.recipients)
        for group in groups:
            assert 1 <= len(group) <= most
            assert len({address.partition("@")[2] for address in group}) <= domains
