"""DKIM signatures: valid by dkimpy's own judgement, over what readers show, and never left out silently."""

from __future__ import annotations

import email
import re
import time
import traceback
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailbridge import Envelope, FileContent, InvalidMessage, Message, Rendered, SMTPConfig, render
from mailbridge.rendering import dkim
from mailbridge.rendering.dkim import signed
from mailbridge.rendering.prepare import prepared
from tests.unit.rendering.dkim_keys import DOMAIN, ed25519_key, judgements, rsa_key

pytestmark = [pytest.mark.needs("dkim"), pytest.mark.needs("nacl")]

NOW = 1_795_000_000.0
SENDER = f"a@{DOMAIN}"
MINIMAL = f"From: {SENDER}\r\nSubject: x\r\n\r\nbody\r\n".encode()


def options(**more: Any) -> tuple[Any, ...]:
    return SMTPConfig(dkim={**ed25519_key().options, **more}).dkim


def sign(content: bytes, **more: Any) -> bytes:
    signed_content = signed(render(content), options(**more), now=lambda: NOW).content
    assert isinstance(signed_content, bytes)
    return signed_content


def is_valid(content: bytes) -> bool:
    return judgements(content, ed25519_key(), rsa_key()) == [True]


def tags(content: bytes) -> dict[str, str]:
    field = email.message_from_bytes(content)["DKIM-Signature"]
    return dict(re.sub(r"\s", "", tag).split("=", 1) for tag in field.split(";"))


def message(**fields: Any) -> Message:
    return Message(**({"subject": "Hi", "sender": SENDER, "to": "b@y.example", "text": "t"} | fields))


def test_without_keys_nothing_is_changed() -> None:
    rendered = render(MINIMAL)
    assert signed(rendered, ()) is rendered


def test_the_signature_stands_in_front_of_what_it_signs() -> None:
    content = sign(MINIMAL)
    assert content.startswith(b"DKIM-Signature: ")
    assert content.endswith(MINIMAL)
    assert is_valid(content)
    assert max(map(len, content.split(b"\r\n"))) <= 78


def test_two_keys_make_two_signatures_in_their_order() -> None:
    config = SMTPConfig(dkim=[rsa_key().options, ed25519_key().options])
    _, rendered = prepared(message(), None, config)
    assert isinstance(rendered.content, bytes)
    assert judgements(rendered.content, rsa_key(), ed25519_key()) == [True, True]
    assert re.findall(rb"a=([a-z0-9-]+)", rendered.content) == [b"rsa-sha256", b"ed25519-sha256"]
    assert rendered.is_signed


def test_what_the_signature_says() -> None:
    found = tags(sign(MINIMAL, identity=f"a@sub.{DOMAIN}", expires=86400))
    assert (found["v"], found["a"], found["c"]) == ("1", "ed25519-sha256", "relaxed/relaxed")
    assert (found["d"], found["s"], found["i"]) == (DOMAIN, "ed", f"a@sub.{DOMAIN}")
    assert (found["t"], found["x"]) == ("1795000000", "1795086400")
    assert "l" not in found  # RFC 6376 section 8.2
    assert "x" not in tags(sign(MINIMAL))


@pytest.mark.parametrize(
    "canonicalization", ["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"]
)
def test_every_canonicalization(canonicalization: str) -> None:
    body = b"  a \t b  \r\n\t\r\nc\r\n\r\n\r\n"
    content = sign(
        f"From:  {SENDER} \r\nSubject:a\r\n  b\r\n\r\n".encode() + body, canonicalization=canonicalization
    )
    assert is_valid(content)
    assert tags(content)["c"] == canonicalization
    assert content.endswith(body)


def test_the_longest_names_are_not_broken_by_folding() -> None:
    domain = f"{'a' * 52}.example"
    config = SMTPConfig(dkim={**ed25519_key().options, "domain": domain, "identity": f"abcd@{domain}"})
    rendered = signed(render(f"From: a@{domain}\r\n\r\n".encode()), config.dkim)
    assert isinstance(rendered.content, bytes)
    assert judgements(rendered.content, ed25519_key(), domain=domain) == [True]
    assert f"d={domain};".encode() in rendered.content


# What is signed

COMMON = [
    "Subject",
    "From",
    "To",
    "Date",
    "Message-ID",
    "Content-Type",
    "Content-Transfer-Encoding",
    "MIME-Version",
]
LIST = ["List-Unsubscribe", "List-Unsubscribe-Post"]


@pytest.mark.parametrize("name", [*COMMON, *LIST, "Reply-To", "Sender", "Importance", "References"])
@pytest.mark.parametrize("how", ["changed", "doubled"])
def test_what_readers_show_can_be_neither_changed_nor_doubled(name: str, how: str) -> None:
    sent = message(
        reply_to="r@y.example",
        sent_by=f"s@{DOMAIN}",
        list_unsubscribe="https://x.example/u",
        one_click_unsubscribe=True,
        priority="high",
        references="<1@x>",
    )
    content = signed(render(sent), options()).content
    assert isinstance(content, bytes)
    assert is_valid(content)
    found = re.search(rf"^{name}: [^\r]*\r\n(?:[ \t][^\r]*\r\n)*".encode(), content, re.MULTILINE)
    assert found is not None
    forged = f"{name}: forged\r\n".encode()
    spoilt = content.replace(found[0], forged if how == "changed" else forged + found[0], 1)
    assert not is_valid(spoilt)


@pytest.mark.parametrize("name", ["Reply-To", "Subject", "To", "Cc", "References"])
def test_what_a_message_lacks_can_not_be_added(name: str) -> None:
    content = sign(f"From: {SENDER}\r\n\r\nx\r\n".encode())
    assert is_valid(content)
    assert not is_valid(f"{name}: evil@x.example\r\n".encode() + content)


@pytest.mark.parametrize("name", ["Received", "List-Id", "Sender", "X-Spam", "Message-ID"])
def test_what_a_relay_adds_does_no_harm(name: str) -> None:
    content = sign(f"From: {SENDER}\r\n\r\nx\r\n".encode())
    assert is_valid(f"{name}: x\r\n".encode() + content)


def test_folding_anew_does_no_harm() -> None:
    content = signed(render(message(subject="long words " * 20)), options()).content
    assert isinstance(content, bytes)
    refolded = re.sub(rb"\r\n[ \t]+(?=[^\r]*\r\n)", b"\r\n\t ", content.partition(b"\r\n\r\n")[0])
    assert is_valid(refolded + b"\r\n\r\n" + content.partition(b"\r\n\r\n")[2])


def test_the_fields_may_be_chosen() -> None:
    content = sign(MINIMAL, headers=["subject", "X-Mine"])
    assert tags(content)["h"] == "from:from:subject:subject:x-mine"
    assert is_valid(content)
    assert not is_valid(b"X-Mine: y\r\n" + content)
    assert is_valid(b"Reply-To: y\r\n" + content)


# What is not sent unsigned

REFUSED = {
    "no From": b"Subject: x\r\n\r\nbody\r\n",
    "two From": f"From: {SENDER}\r\nFrom: b@evil.example\r\n\r\nbody\r\n".encode(),
    "no header": b"\r\nFrom: a@x\r\n",
    "white space first": b" x\r\nFrom: a@x\r\n\r\nbody\r\n",
    "a line that is no field": f"From: {SENDER}\r\nnonsense\r\n\r\nbody\r\n".encode(),
    "a blank before the colon": f"From : {SENDER}\r\n\r\nbody\r\n".encode(),
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_signed_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidMessage):
        sign(content)


def test_binary_content_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="can't be signed"):
        signed(render(MINIMAL, binary=True), options())


def test_header_fields_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dkim, "_MOST_HEAD", 1000)
    with pytest.raises(InvalidMessage, match="longer than 1000 bytes"):
        sign(b"From: a@x\r\n" * 100)


@pytest.mark.parametrize("canonicalization", ["relaxed/relaxed", "simple/simple"])
def test_what_stays_in_a_file_is_signed_there(tmp_path: Path, canonicalization: str) -> None:
    path = tmp_path / "large.eml"
    path.write_bytes(MINIMAL + b"\r\n \t x  \r\n" * 300_000 + b"\r\n" * 400_000)
    rendered = render(path)
    found = signed(rendered, options(canonicalization=canonicalization))
    assert isinstance(found.content, FileContent)
    assert found.size == len(bytes(found.content)) > rendered.size
    assert is_valid(bytes(found.content))
    again = b"".join(found.content.pieces())
    assert again.endswith(path.read_bytes())
    path.write_bytes(MINIMAL)
    with pytest.raises(InvalidMessage, match="changed"):
        bytes(found.content)


def test_what_was_an_iterator_outlives_what_it_was_signed_from() -> None:
    rendered = render(iter([MINIMAL, b"x\r\n" * 700_000]))
    found = signed(rendered, options())
    found.close()
    del rendered
    assert isinstance(found.content, FileContent)
    assert is_valid(bytes(found.content))


def test_an_error_of_the_library_is_ours_and_shows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    dkim = pytest.importorskip("dkim")

    def fail(*_: Any) -> None:
        raise ValueError(rsa_key().pem)

    keys = SMTPConfig(dkim=rsa_key().options).dkim
    monkeypatch.setattr(dkim, "RSASSA_PKCS1_v1_5_sign", fail)
    with pytest.raises(InvalidMessage, match="ValueError in dkimpy") as caught:
        signed(render(MINIMAL), keys)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "".join(shown.format()) + repr(
        [frame.locals for frame in shown.stack if "/tests/" not in frame.filename]
    )
    assert rsa_key().pem.split("\n")[5] not in text


def test_an_interrupt_leaves_no_key_in_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    dkim = pytest.importorskip("dkim")
    held: list[Any] = []

    def interrupt(_: Any, key: Any) -> None:
        held.append(str(key["privateExponent"]))
        raise KeyboardInterrupt

    keys = SMTPConfig(dkim=rsa_key().options).dkim
    monkeypatch.setattr(dkim, "RSASSA_PKCS1_v1_5_sign", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        signed(render(MINIMAL), keys)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [frame for frame in shown.stack if Path(frame.filename) != Path(__file__)]
    assert any("dkim" in frame.filename for frame in frames)
    text = repr([frame.locals for frame in frames])
    assert held[0] not in text
    assert rsa_key().pem.split("\n")[5] not in text


# The form that is signed


def eight_bit() -> EmailMessage:
    made = EmailMessage(policy=policy.SMTP)
    made["From"], made["To"], made["Subject"] = SENDER, "b@y.example", "x"
    made.set_content("grüße\n", cte="8bit")
    return made


def test_no_relay_needs_to_encode_it() -> None:
    assert render(eight_bit()).is_eight_bit
    for given_one in (render(eight_bit()), render(render(eight_bit()).content)):
        rendered = signed(given_one, options())
        assert isinstance(rendered.content, bytes)
        assert not rendered.is_eight_bit
        assert is_valid(rendered.content)
        parsed = email.message_from_bytes(rendered.content, policy=policy.default)
        assert parsed.get_content() == "grüße\r\n"


def test_utf8_in_header_fields_stays_and_is_signed() -> None:
    rendered = signed(render(Message("x", "ü@example.test", "b@y.example", text="ü")), options())
    assert (rendered.needs_smtputf8, rendered.is_signed) == (True, True)
    assert isinstance(rendered.content, bytes)
    assert is_valid(rendered.content)


def test_what_is_signed_by_others_is_not_changed_and_signed_in_addition() -> None:
    theirs = signed(render(MINIMAL), SMTPConfig(dkim=rsa_key().options).dkim).content
    assert isinstance(theirs, bytes)
    both = sign(theirs)
    assert both.endswith(theirs)
    assert judgements(both, ed25519_key(), rsa_key()) == [True, True]
    eight = b"DKIM-Signature: v=1\r\nFrom: a@example.test\r\n\r\n\xc3\xbc\r\n"
    assert sign(eight).endswith(eight)


@pytest.mark.parametrize("given_one", [MINIMAL, render(MINIMAL)], ids=["bytes", "rendered"])
def test_everything_that_a_mailer_sends_is_signed(given_one: bytes | Rendered) -> None:
    config = SMTPConfig(dkim=ed25519_key().options)
    _, rendered = prepared(given_one, Envelope("a@x", ["b@y"]), config)
    assert isinstance(rendered.content, bytes)
    assert is_valid(rendered.content)


def test_many_blanks_take_no_time() -> None:
    """The library's own expression for them takes half a minute here."""
    body = (b" " * 997 + b"x\r\n") * 20_000
    start = time.process_time()
    content = sign(f"From: {SENDER}\r\n\r\n".encode() + body)
    assert time.process_time() - start < 10
    assert content.endswith(body)


LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=60), max_size=8)


@settings(max_examples=60)
@given(subject=st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=80), lines=LINES)
def test_any_message_is_validly_signed(subject: str, lines: list[str]) -> None:
    rendered = signed(render(message(subject=subject, text="\n".join(lines))), options())
    assert isinstance(rendered.content, bytes)
    assert is_valid(rendered.content)


@settings(max_examples=60)
@given(
    body=st.binary(max_size=200).filter(lambda body: b"\0" not in body),
    how=st.sampled_from(["relaxed", "simple"]),
)
def test_any_bytes_are_validly_signed_or_refused(body: bytes, how: str) -> None:
    try:
        content = sign(f"From: {SENDER}\r\n\r\n".encode() + body, canonicalization=f"{how}/{how}")
    except InvalidMessage:
        return
    assert is_valid(content)
