"""Defaults for messages and DKIM, from Django's settings."""

from __future__ import annotations

import traceback
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from django.core.mail import EmailMessage, EmailMultiAlternatives, send_mail

from mailbridge.testing import ScriptedServer
from mailbridge_django.compat import MailerMisconfigured
from mailbridge_django.handler import mailers
from tests.django.conftest import Use
from tests.unit.rendering.dkim_keys import DOMAIN, ed25519_key, judgements, rsa_key

SENDER = f"a@{DOMAIN}"
DEFAULTS: dict[str, Any] = {
    "reply_to": ["Ü <r@x.example>"],
    "headers": {"X-Site": "ü", "List-Id": "<l.x.example>"},
    "list_unsubscribe": "https://x.example/u",
    "one_click_unsubscribe": True,
    "priority": "low",
}


def sent_to(server: ScriptedServer) -> Any:
    (received,) = server.messages
    return message_from_bytes(received.content, policy=policy.default)


def test_messages_have_the_defaults(use: Use, server: ScriptedServer) -> None:
    use(server, security="none", defaults=DEFAULTS)
    send_mail("Hi", "grüße", SENDER, ["b@y.example"], html_message="<p>grüße")
    found = sent_to(server)
    assert (found["From"], found["Reply-To"], found["X-Site"]) == (SENDER, "Ü <r@x.example>", "ü")
    assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert (found["Importance"], found["X-Priority"]) == ("low", "5")


def test_what_a_message_says_itself_stays(use: Use, server: ScriptedServer) -> None:
    use(server, security="none", defaults=DEFAULTS)
    message = EmailMessage(
        "Hi", "x", SENDER, ["b@y.example"], reply_to=["me@x.example"], headers={"x-site": "me"}
    )
    message.send()
    found = sent_to(server)
    assert found.get_all("Reply-To") == ["me@x.example"]
    assert found.get_all("X-Site") == ["me"]
    assert message.extra_headers == {"x-site": "me"}


def test_an_urgent_message_is_not_called_unimportant(use: Use, server: ScriptedServer) -> None:
    use(server, security="none", defaults=DEFAULTS)
    message = EmailMessage("Reset", "x", SENDER, ["b@y.example"])
    message.mailbridge_priority = "high"  # type: ignore[attr-defined]
    message.send()
    found = sent_to(server)
    assert (found["X-Site"], found["Importance"], found["X-Priority"]) == ("ü", None, None)


@pytest.mark.needs("dkim", "nacl")
def test_messages_are_signed(use: Use, server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(rsa_key().pem)
    first = {"domain": DOMAIN, "selector": "rsa", "key_file": str(path)}
    use(server, security="none", dkim=[first, ed25519_key().options], defaults=DEFAULTS)
    message = EmailMultiAlternatives("Grüße " * 30, "grüße\n" * 50, SENDER, ["b@y.example"])
    message.attach_alternative("<p>grüße", "text/html")
    message.attach("räpört.pdf", b"\0\xff", "application/pdf")
    assert message.send() == 1
    (received,) = server.messages
    assert judgements(received.content, rsa_key(), ed25519_key()) == [True, True]
    assert b"list-unsubscribe-post" in received.content.partition(b"bh=")[0]


@pytest.mark.needs("dkim", "nacl")
@pytest.mark.parametrize("several", [False, True])
def test_no_traceback_of_bad_settings_shows_a_key(use: Use, server: ScriptedServer, several: bool) -> None:
    options = {**rsa_key().options, "selector": "a b"}
    use(server, security="none", dkim=[options] if several else options)
    with pytest.raises(MailerMisconfigured, match=r"dkim\.selector") as caught:
        mailers["default"]
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [frame.locals for frame in shown.stack if "/mailbridge" in frame.filename]
    assert rsa_key().pem.split("\n")[5] not in repr(frames)


@pytest.mark.needs("dkim", "nacl")
def test_equal_settings_share_a_pool(use: Use, server: ScriptedServer) -> None:
    use(server, security="none", dkim=ed25519_key().options, defaults=DEFAULTS)
    for _ in range(3):
        send_mail("Hi", "x", SENDER, ["b@y.example"])
    assert len(server.messages) == 3
    assert len(server.connections) == 1
