"""DKIM signatures stay valid on the way through real servers, for everything that a mailer can send."""

from __future__ import annotations

import uuid
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from mailbridge import Envelope, InvalidMessage, Mailer, Message
from tests.integration.conftest import StartMailer
from tests.integration.mails import INBOX
from tests.servers.exim import Exim
from tests.servers.postfix import Postfix
from tests.unit.rendering.dkim_keys import DOMAIN, ed25519_key, judgements, rsa_key

pytestmark = [pytest.mark.needs("dkim"), pytest.mark.needs("nacl")]

SENDER = f"a@{DOMAIN}"
ENVELOPE = Envelope(SENDER, [INBOX])
TEXT = "grüße\n.\n..\nFrom here\n  blanks \t at the end   \n\n\n" + "ein langes Wort " * 100 + "\n\n\n"
RAW = (
    f"from:  {SENDER}\r\nSubject: folded\r\n\tanew\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n"
    "Message-ID: <{}@x.example>\r\n\r\n. dot\r\n\r\ntext \r\n\r\n\r\n"
)


def everything() -> Message:
    made = Message("Grüße " * 30, ("Jörg, Ä " * 9, SENDER), INBOX, text=TEXT, html=f"<p>{TEXT}")
    made.attach(bytes(range(256)) * 50, filename="räpört ☃.bin")
    made.attach(b"\x89PNG", filename="i.png", content_id="i@x.example")
    made.list_unsubscribe, made.one_click_unsubscribe = "https://x.example/u", True
    return made


def eight_bit() -> EmailMessage:
    made = EmailMessage(policy=policy.SMTP)
    made["From"], made["To"], made["Subject"] = SENDER, INBOX, "x"
    made.set_content("grüße\n  \n.\n", cte="8bit")
    return made


def raw() -> bytes:
    return RAW.format(uuid.uuid4().hex).encode()


@pytest.fixture(params=["postfix", "postfix without extensions", "exim"])
def server(request: pytest.FixtureRequest) -> tuple[Postfix | Exim, Any]:
    found: Postfix | Exim = request.getfixturevalue(request.param.split()[0])
    return found, found.minimal if isinstance(found, Postfix) and " " in request.param else found.plain


@pytest.mark.parametrize("canonicalization", ["relaxed/relaxed", "simple/simple"])
@pytest.mark.parametrize("kind", ["message", "email message", "bytes", "file"])
def test_both_signatures_are_valid_where_it_arrived(
    server: tuple[Postfix | Exim, Any], mailer: StartMailer, kind: str, canonicalization: str, tmp_path: Path
) -> None:
    stored, endpoint = server
    keys = rsa_key(), ed25519_key()
    client: Mailer = mailer(
        endpoint, dkim=[{**key.options, "canonicalization": canonicalization} for key in keys]
    )
    made: Any = everything() if kind == "message" else eight_bit() if kind == "email message" else raw()
    if kind == "file":
        made, content = tmp_path / "mail.eml", made + b".. text \t \r\n\r\n" * 100_000  # stays in the file
        made.write_bytes(content)
    result = client.send(made, envelope=ENVELOPE)
    assert result.message_id is not None
    (content,) = stored.delivered(result.message_id)
    assert judgements(content, *keys) == [True, True]
    # A single byte of it is enough.
    assert judgements(content.replace(b"\r\n\r\n", b"\r\n\r\nx", 1), *keys) == [False, False]


def test_what_can_not_be_signed_does_not_arrive(postfix: Postfix, mailer: StartMailer) -> None:
    client = mailer(postfix.plain, dkim=ed25519_key().options)
    already = postfix.accepted_message_ids()
    with pytest.raises(InvalidMessage, match="From"):
        client.send(b"Subject: x\r\n\r\nbody\r\n", envelope=ENVELOPE)
    outcomes = client.send_many([(b"Subject: x\r\n\r\n", ENVELOPE), (everything(), ENVELOPE)])
    assert isinstance(outcomes[0], InvalidMessage)
    assert len(postfix.accepted_message_ids()) == len(already) + 1
