"""What EHLO answers say, from tidy ones to what real and hostile servers send."""

import copy
import pickle
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.reply import Reply
from mailbridge.smtp.capabilities import EMPTY, Capabilities


def parsed(*lines: str) -> Capabilities:
    return Capabilities.parse(Reply(250, ("mx.example greets you", *lines)))


def test_keywords_in_upper_case_with_parameters_as_sent():
    found = parsed(
        "PIPELINING", "size 1000", "Limits RCPTMAX=50 mailmax=3", "STARTTLS", "8BITMIME", "X-odd-1"
    )
    assert found.keywords == {
        "PIPELINING": (),
        "SIZE": ("1000",),
        "LIMITS": ("RCPTMAX=50", "mailmax=3"),
        "STARTTLS": (),
        "8BITMIME": (),
        "X-ODD-1": (),
    }
    assert "pipelining" in found
    assert found.has("8bitMIME")
    assert "CHUNKING" not in found


def test_first_line_is_the_greeting_whatever_it_says():
    assert Capabilities.parse(Reply(250, ("PIPELINING", "SIZE"))).keywords == {"SIZE": ()}
    assert Capabilities.parse(Reply(250, ("STARTTLS",))) == EMPTY
    assert Capabilities.parse(Reply(250)) == EMPTY


@pytest.mark.parametrize(
    "line", ["", " ", "-", "-SIZE", "*", "a_b", "SIZE=10", "\u017fize 10", "\0", "\x1b[31m"]
)
def test_what_is_no_keyword_is_left_out(line):
    assert parsed("PIPELINING", line, "DSN").keywords == {"PIPELINING": (), "DSN": ()}


def test_leading_and_trailing_blanks_do_not_matter():
    assert parsed("  SIZE\t 10  ").keywords == {"SIZE": ("10",)}


@pytest.mark.parametrize(
    ("lines", "mechanisms"),
    [
        ([], ()),
        (["AUTH"], ()),
        (["AUTH LOGIN plain"], ("LOGIN", "PLAIN")),
        (["AUTH=LOGIN PLAIN"], ("LOGIN", "PLAIN")),
        (["auth=login"], ("LOGIN",)),
        (["AUTH="], ()),
        (["AUTH PLAIN LOGIN", "AUTH=LOGIN CRAM-MD5", "AUTH PLAIN"], ("PLAIN", "LOGIN", "CRAM-MD5")),
        (["AUTH PLAIN PL\u0130AIN a=b SCRAM-SHA-256-PLUS"], ("PLAIN", "SCRAM-SHA-256-PLUS")),
    ],
)
def test_auth_mechanisms(lines, mechanisms):
    found = parsed(*lines)
    assert found.auth_mechanisms == mechanisms
    assert ("AUTH" in found) == bool(lines)


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ("SIZE 35882577", 35882577),
        ("SIZE 10 20", 10),
        ("SIZE", None),
        ("SIZE 0", None),
        ("SIZE 000", None),
        ("SIZE -1", None),
        ("SIZE +1", None),
        ("SIZE 1e6", None),
        ("SIZE 10_000", None),
        ("SIZE \u0661\u0660", None),
        ("SIZE junk", None),
        ("SIZE " + "9" * 20, 10**20 - 1),
        (f"SIZE {2**80}", None),
        ("SIZE " + "9" * 8000, None),
        ("DSN", None),
    ],
)
def test_size_limit(line, limit):
    assert parsed(line).size_limit == limit


def test_of_a_keyword_given_twice_the_first_counts():
    assert parsed("SIZE 10", "SIZE 20").size_limit == 10


def test_without_takes_away_and_leaves_the_original():
    found = parsed("CHUNKING", "AUTH PLAIN", "DSN")
    assert found.without(["chunking", "auth", "never-offered"]) == parsed("DSN")
    assert found.without([]) == found
    assert "CHUNKING" in found


def test_a_value():
    found = parsed("SIZE 10", "AUTH PLAIN")
    assert hash(found) == hash(parsed("SIZE 10", "AUTH PLAIN"))
    assert found != parsed("SIZE 11", "AUTH PLAIN")
    assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == found
    found.keywords["X"] = ()  # a copy: the value does not change
    assert "X" not in found


def test_str_is_the_offer_in_its_order_fit_for_a_terminal():
    assert str(parsed("PIPELINING", "AUTH=LOGIN plain", "size 10")) == "PIPELINING, AUTH LOGIN PLAIN, SIZE 10"
    assert str(parsed("X a\x1b[31mb")) == r"X a\x1b[31mb"
    assert len(str(parsed("X " + "y" * 8000))) < 1100
    assert str(EMPTY) == ""


@given(st.lists(st.text(max_size=40), max_size=20))
def test_any_lines_are_read_without_an_error(lines):
    found = Capabilities.parse(Reply(250, tuple(lines)))
    assert str(found).isprintable()
    assert found.size_limit is None or found.size_limit > 0
    assert all(mechanism.isascii() for mechanism in found.auth_mechanisms)
    assert hash(found) == hash(Capabilities.parse(Reply(250, tuple(lines))))


@given(st.lists(st.text(max_size=20), max_size=10), st.lists(st.text(max_size=20), max_size=10))
def test_further_lines_never_take_away(lines, more):
    fewer, all_of_them = parsed(*lines), parsed(*lines, *more)
    assert fewer.keywords.keys() <= all_of_them.keywords.keys()
    assert set(fewer.auth_mechanisms) <= set(all_of_them.auth_mechanisms)
    assert fewer.size_limit == all_of_them.size_limit or "SIZE" not in fewer


@pytest.mark.parametrize(
    ("line", "limits"),
    [
        ("LIMITS MAILMAX=20 RCPTMAX=5 RCPTDOMAINMAX=1", {"MAILMAX": 20, "RCPTMAX": 5, "RCPTDOMAINMAX": 1}),
        ("limits rcptmax=999999", {"RCPTMAX": 999999}),
        ("LIMITS RCPTMAX=1000000 MAILMAX=5", {"MAILMAX": 5}),
        ("LIMITS RCPTMAX=0 MAILMAX=05 RCPTDOMAINMAX=-1", {}),
        ("LIMITS RCPTMAX= MAILMAX RCPTDOMAINMAX=1x X_NEW=7", {"X_NEW": 7}),
        ("LIMITS RCPTMAX=\u0663", {}),
        ("LIMITS", {}),
        ("SIZE 10", {}),
    ],
)
def test_limits_and_what_is_malformed_in_them(line, limits):
    assert parsed(line).limits == limits


@pytest.mark.parametrize(
    ("line", "least"),
    [("DELIVERBY", None), ("DELIVERBY 240", 240), ("DELIVERBY -1", None), ("DELIVERBY 1234567890", None)],
)
def test_the_least_time_for_delivery(line, least):
    assert parsed(line).least_deliver_by == least


@pytest.mark.parametrize(
    ("line", "longest", "latest"),
    [
        ("FUTURERELEASE 86400 2030-01-02T03:04:05Z", 86400, datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("FUTURERELEASE 86400 2030-01-02t03:04:05.999z", 86400, datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("FUTURERELEASE", None, None),
        ("FUTURERELEASE soon later", None, None),
        ("FUTURERELEASE 1 2030-02-30T00:00:00Z", 1, None),
        ("FUTURERELEASE 1 2030-01-02T03:04:05+00:00", 1, None),
        ("SIZE 86400 2030-01-02T03:04:05Z", None, None),
    ],
)
def test_how_long_messages_are_held(line, longest, latest):
    assert (parsed(line).longest_hold, parsed(line).latest_release) == (longest, latest)


def test_the_profile_of_priorities():
    assert parsed("MT-PRIORITY NSEP").priority_profile == "NSEP"
    assert parsed("MT-PRIORITY").priority_profile is None
    assert parsed("SIZE 1").priority_profile is None


@given(st.text(), st.sampled_from(["LIMITS", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY", "SIZE"]))
def test_parameters_of_any_kind_are_read_without_an_error(text, keyword):
    found = Capabilities(((keyword, tuple(text.split())),))
    assert all(0 < value < 10**6 for value in found.limits.values())
    assert (found.least_deliver_by or 0) >= 0
    assert (found.longest_hold or 0) >= 0
    assert found.latest_release is None or found.latest_release.tzinfo is UTC
