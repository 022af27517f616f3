"""Delivery options are checked when they are built, and nothing in them can end a line."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.errors import InvalidAddress, InvalidMessage
from mailbridge.message.delivery_options import (
    DSN,
    DeliverBy,
    Recipient,
    as_extensions,
    as_notify,
    as_orcpt,
    as_priority,
    as_send_at,
)

CONTROL = st.builds("{}{}{}".format, st.text(), st.sampled_from("\r\n\0\x1b\x7f\u2028"), st.text())


class TestDSN:
    def test_words_are_normal(self) -> None:
        dsn = DSN(ret="full", envid="QQ314159", notify="delay, success", orcpt="Bob@Example.COM")
        assert (dsn.ret, dsn.envid) == ("FULL", "QQ314159")
        assert (dsn.notify, dsn.orcpt) == (("SUCCESS", "DELAY"), "rfc822;Bob@Example.COM")
        assert dsn == DSN(ret="FULL", envid="QQ314159", notify=["SUCCESS", "DELAY"], orcpt=dsn.orcpt)

    @pytest.mark.parametrize(
        "given",
        [
            {"ret": "HDRS", "envid": "7", "notify": "SUCCESS,FAILURE", "orcpt": "rfc822;a@b"},
            # Nodemailer's other names and words for the same
            {"return": "headers", "id": "7", "notify": ["success", "failure"], "recipient": "a@b"},
        ],
    )
    def test_mappings_of_nodemailer(self, given: dict[str, Any]) -> None:
        assert DSN.of(given) == DSN(ret="HDRS", envid="7", notify=["SUCCESS", "FAILURE"], orcpt="a@b")
        assert DSN.of({"return": "body"}).ret == "FULL"

    def test_whether_it_asks_for_anything(self) -> None:
        assert not DSN()
        assert not DSN.of({"ret": None})
        for options in ({"notify": "NEVER"}, {"ret": "HDRS"}, {"envid": "x"}, {"orcpt": "a@b"}):
            assert DSN(**options)

    @pytest.mark.parametrize(
        "options",
        [
            {"ret": "SOME"},
            {"ret": ""},
            {"ret": 3},
            {"notify": "SOMETIMES"},
            {"notify": ["NEVER", "SUCCESS"]},  # RFC 3461 section 4.1 note a
            {"notify": ""},
            {"notify": 3},
            {"envid": ""},
            {"envid": "ü"},
            {"envid": 314159},
            {"envid": "x" * 95},
            {"envid": "+" * 32},
            {"orcpt": ""},
            {"orcpt": "rfc822;"},
            {"orcpt": "rfc822;ü@x"},
            {"orcpt": "x" * 500},
            {"orcpt": "+" * 200},
            {"orcpt": b"a@b"},
        ],
    )
    def test_nonsense_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(InvalidMessage):
            DSN(**options)

    @pytest.mark.parametrize("envid", ["x" * 94, "+" * 31, "an id with blanks"])
    def test_what_fits_is_taken(self, envid: str) -> None:
        assert DSN(envid=envid).envid == envid

    def test_unknown_names_are_refused_and_told(self) -> None:
        with pytest.raises(InvalidMessage, match=r"Did you mean 'dsn\.notify'"):
            DSN.of({"notfy": "NEVER"})
        with pytest.raises(InvalidMessage, match="twice"):
            DSN.of({"id": "1", "envid": "2"})
        with pytest.raises(InvalidMessage, match="a mapping, not str"):
            DSN.of("NEVER")

    @given(CONTROL)
    def test_no_line_can_be_ended(self, text: str) -> None:
        for name in ("envid", "orcpt"):
            with pytest.raises(InvalidMessage):
                DSN(**{name: text})


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("a@b", "rfc822;a@b"),
        ("RFC822;A@b", "rfc822;A@b"),
        ("grüße@b", "utf-8;grüße@b"),
        ("utf-8; grüße@b", "utf-8;grüße@b"),
        ("x400;/c=us/", "x400;/c=us/"),
        ('"a;b"@c', 'rfc822;"a;b"@c'),
        ("a@b;c", "rfc822;a@b;c"),
    ],
)
def test_original_recipients(given: str, normal: str) -> None:
    assert as_orcpt(given) == normal


class TestRecipient:
    def test_it_is_an_address_with_options(self) -> None:
        recipient = Recipient("Bob <Bob@Example.COM>", notify="success", orcpt="rfc822;list@example.com")
        assert (recipient.address, recipient.notify) == ("Bob@Example.COM", ("SUCCESS",))
        assert recipient.orcpt == "rfc822;list@example.com"
        assert recipient
        assert not Recipient("a@b")

    @pytest.mark.parametrize("bad", ["", "a", "a@b\r\nRCPT TO:<evil@x>", "a@b> NOTIFY=NEVER", 3, None])
    def test_bad_addresses(self, bad: Any) -> None:
        with pytest.raises(InvalidAddress, match="Invalid address"):
            Recipient(bad)


class TestDeliverBy:
    def test_what_it_may_be_given_as(self) -> None:
        assert DeliverBy.of(120) == DeliverBy(120, "N", False) == DeliverBy.of(timedelta(minutes=2))
        assert DeliverBy.of({"seconds": 120, "mode": "R", "trace": True}) == DeliverBy(120, "R", True)
        assert DeliverBy.of(DeliverBy(-5)).seconds == -5  # RFC 2852 section 4: notify although it is late

    @pytest.mark.parametrize(
        "given",
        [
            *({"seconds": n, "mode": "R"} for n in (0, -1)),
            *({"seconds": n} for n in (10**9, -(10**9), 1.5, "120", True, None)),
            {"seconds": 1, "mode": "X"},
            {"seconds": 1, "trace": "yes"},
            {"seconds": 1, "mod": "R"},
            {"mode": "R"},
            "120",
        ],
    )
    def test_nonsense_is_refused(self, given: Any) -> None:
        with pytest.raises(InvalidMessage):
            DeliverBy.of(given)


class TestSendAt:
    def test_a_time_is_in_utc_and_never_too_early(self) -> None:
        zone = timezone(timedelta(hours=2))
        assert as_send_at(datetime(2030, 1, 2, 3, 0, tzinfo=zone)) == datetime(2030, 1, 2, 1, 0, tzinfo=UTC)
        assert as_send_at(datetime(2030, 1, 2, 3, 4, 5, 1, tzinfo=UTC)) == datetime(
            2030, 1, 2, 3, 4, 6, tzinfo=UTC
        )

    def test_seconds(self) -> None:
        assert as_send_at(60) == 60 == as_send_at(timedelta(minutes=1))
        assert as_send_at(timedelta(milliseconds=1)) == 1
        assert as_send_at(None) is None

    @pytest.mark.parametrize(
        "bad", [datetime(2030, 1, 1), 0, -1, 1.5, "60", True, 10**9, timedelta(0), timedelta(seconds=-1)]
    )
    def test_nonsense_is_refused(self, bad: Any) -> None:
        with pytest.raises(InvalidMessage, match="send_at"):
            as_send_at(bad)


@pytest.mark.parametrize("good", [-9, 0, 9])
def test_priorities(good: int) -> None:
    assert as_priority(good) == good


@pytest.mark.parametrize("bad", [-10, 10, 1.0, "3", True])
def test_what_is_no_priority(bad: Any) -> None:
    with pytest.raises(InvalidMessage, match="mt_priority"):
        as_priority(bad)


def test_options_name_extensions() -> None:
    assert as_extensions("prefer", "dsn, mt-priority") == ("DSN", "MT-PRIORITY")
    assert as_extensions("prefer", ["DSN", "dsn"]) == ("DSN",)
    for bad in (["SMTPUTF8"], "NEWS", 3):
        with pytest.raises(InvalidMessage, match="prefer"):
            as_extensions("prefer", bad)  # type: ignore[arg-type]


@given(st.lists(st.sampled_from(["SUCCESS", "Failure", "delay"]), min_size=1))
def test_reports_come_in_one_order_each_once(words: list[str]) -> None:
    found = as_notify(words)
    assert list(found) == [word for word in ("SUCCESS", "FAILURE", "DELAY") if word in map(str.upper, words)]


@pytest.mark.parametrize(
    "value", [DSN(ret="HDRS", notify="NEVER"), Recipient("a@b", notify="DELAY"), DeliverBy(5, "R")], ids=str
)
def test_they_are_values(value: Any) -> None:
    assert pickle.loads(pickle.dumps(value)) == value == copy.deepcopy(value)
    assert len({value, copy.copy(value)}) == 1
    with pytest.raises(FrozenInstanceError):
        setattr(value, next(iter(value.__slots__)), "evil\r\n")
