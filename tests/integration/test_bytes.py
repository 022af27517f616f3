"""What arrives is what was rendered, byte for byte, and one message never becomes two."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from mailbridge import Envelope, InvalidMessage, Mailer, SendResult, render
from tests.integration.conftest import StartMailer
from tests.integration.mails import INBOX, SENDER, Mail, new_mail
from tests.servers.dovecot import PASSWORD, USERNAME, Dovecot
from tests.servers.exim import Exim
from tests.servers.opensmtpd import OpenSmtpd
from tests.servers.postfix import Postfix
from tests.servers.storage import StoredMessage

SMUGGLED = (
    b"MAIL FROM:<evil@evil.test>\r\nRCPT TO:<inbox@lab.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
)
# What some server has taken for the end of a message (CVE-2023-51764, -51765, -51766 and their like).
FALSE_ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\r\n.\r\n",
]
BODIES = {
    "empty": b"",
    "one empty line": b"\r\n",
    "only dots": b".\r\n..\r\n...\r\n.\r\n",
    "a dot at once": b".",
    "dots in front": b".one\r\n..two\r\n...three\r\n",
    "no final line end": b"the end",
    "ends in CR": b"the end\r",
    "ends in LF": b"the end\n",
    "bare CR": b"one\rtwo\r\rthree\r\n",
    "bare LF": b"one\ntwo\n\nthree\n",
    "mixed": b"one\n\r\n\r\ntwo\r\r\n\n",
    "many empty lines at the end": b"x" + b"\r\n" * 40,
    "From": b"From here\r\n>From there\r\n",
    "8 bit": "grüße, мир, 世界\r\n".encode(),
    "Latin-1": b"gr\xfc\xdfe\r\n",
    "a line of 998": b"x" * 998 + b"\r\n",
    "dots where pieces end": (b"." * 62 + b"\r\n") * 1500,
    **{f"smuggling by {end!r}": b"hello" + end + SMUGGLED for end in FALSE_ENDS},
}
nasty = pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)


@pytest.fixture
def postfix_mailer(postfix: Postfix, mailer: StartMailer) -> Mailer:
    return mailer(postfix.plain)


@nasty
def test_postfix_stores_what_was_rendered(postfix: Postfix, postfix_mailer: Mailer, body: bytes) -> None:
    already = len(postfix.accepted_message_ids())
    mail = new_mail(body)
    result = mail.send(postfix_mailer)
    assert postfix.delivered(mail.message_id) == [render(mail.content).content]
    assert postfix.accepted_message_ids()[already:] == [mail.message_id] == [result.message_id]
    assert result.message_size == len(render(mail.content).content)
    assert result.queue_id is not None
    assert result.queue_id in postfix.log()
    new_mail().send(postfix_mailer)
    assert postfix_mailer.stats().opened_total == 1  # still in step


@nasty
def test_exim_stores_what_was_rendered(exim: Exim, mailer: StartMailer, body: bytes) -> None:
    already = len(exim.messages())
    mail, client = new_mail(body), mailer(exim.plain)
    mail.send(client)
    assert exim.delivered(mail.message_id) == [render(mail.content).content]
    new_mail().send(client)
    assert len(exim.messages()) == already + 2
    assert client.stats().opened_total == 1


def check_all_stored(mails: list[Mail], stored: list[StoredMessage]) -> None:
    """Each once and nothing else, in whatever order."""
    assert sorted(message.message_id for message in stored) == sorted(mail.message_id for mail in mails)
    found = {message.message_id: message.content for message in stored}
    for mail in mails:
        assert found[mail.message_id] == render(mail.content).content


def test_opensmtpd_passes_on_what_was_rendered(opensmtpd: OpenSmtpd, mailer: StartMailer) -> None:
    """It takes LF.LF for the end of a message. All in one session: one reply too many would end that."""
    client, already = mailer(opensmtpd.plain), len(opensmtpd.messages())
    mails = [new_mail(body) for body in BODIES.values()]
    results = client.send_many([(mail.content, mail.envelope) for mail in mails])
    assert [result for result in results if not isinstance(result, SendResult)] == []
    assert client.stats().opened_total == 1
    check_all_stored(mails, opensmtpd.messages(at_least=already + len(mails))[already:])


def test_dovecot_passes_on_what_was_rendered(dovecot: Dovecot, mailer: StartMailer) -> None:
    client = mailer(dovecot.submission, security="starttls", username=USERNAME, password=PASSWORD)
    already = len(dovecot.messages())
    mails = [new_mail(body) for body in BODIES.values()]
    for mail in mails:
        mail.send(client)
    check_all_stored(mails, dovecot.messages()[already:])
    assert client.stats().opened_total == 1


@pytest.mark.parametrize("body", [b"a\0b\r\n", b"x" * 999], ids=["NUL", "long line"])
def test_what_servers_treat_differently_is_refused_before_a_session_is_opened(
    postfix_mailer: Mailer, body: bytes
) -> None:
    """OpenSMTPD cuts a line at a NUL; Postfix and Exim break or refuse long lines when they pass them on."""
    with pytest.raises(InvalidMessage, match="The content holds a"):
        new_mail(body).send(postfix_mailer)
    assert postfix_mailer.stats().opened_total == 0


def is_stored_once(postfix: Postfix, mail: Mail) -> bool:
    """For large ones, whose difference nobody could read."""
    return postfix.delivered(mail.message_id) == [mail.content]


@pytest.mark.parametrize("security", ["none", "starttls"])
@pytest.mark.parametrize("shift", range(4))
def test_dots_across_the_borders_of_pieces(
    postfix: Postfix, mailer: StartMailer, security: str, shift: int
) -> None:
    """On the wire each line is four bytes long, so that every border meets each place of one."""
    mail = new_mail(b"x" * shift + b"\r\n" + b".\r\n" * 50_000)
    mail.send(mailer(postfix.plain, security=security))
    assert is_stored_once(postfix, mail)


def attached_message() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = f"Ärger <{SENDER}>", INBOX, "Grüße " * 20
    message["Bcc"] = "blind@lab.test"
    message.set_content("grüße\n.\n\n..\r.\r" + "ein langes Wort " * 100 + "\n.")
    message.add_alternative("<p>grüße\n.\n</p>", subtype="html")
    message.add_attachment(
        bytes(range(256)) * 300 + b"\r\n.\r\n", maintype="application", subtype="octet-stream"
    )
    return message


def test_an_email_message_arrives_as_rendered_for_everyone(postfix: Postfix, postfix_mailer: Mailer) -> None:
    rendered = render(message := attached_message())
    result = postfix_mailer.send(rendered, envelope=Envelope.from_message(message))
    assert rendered.message_id is not None
    copies = postfix.copies(rendered.message_id)
    assert {copy.recipients for copy in copies} == {(INBOX,), ("blind@lab.test",)}
    assert [copy.content for copy in copies] == [rendered.content] * 2
    assert b"blind@lab.test" not in rendered.content
    assert set(result.accepted) == {INBOX, "blind@lab.test"}


def test_twenty_megabytes(postfix: Postfix, postfix_mailer: Mailer) -> None:
    mail = new_mail((b"." + b"x" * 75 + b"\r\n") * 260_000)
    assert len(mail.content) > 20_000_000
    mail.send(postfix_mailer)
    assert is_stored_once(postfix, mail)


def test_the_null_sender(postfix: Postfix, postfix_mailer: Mailer) -> None:
    mail = new_mail(sender="")
    mail.send(postfix_mailer)
    assert [copy.sender for copy in postfix.copies(mail.message_id)] == [""]


@pytest.mark.parametrize("local", ['"a b"', '"a@b"', "a+b", "o'hara", '"qu\\"ote"'])
def test_odd_local_parts_reach_their_boxes(postfix: Postfix, postfix_mailer: Mailer, local: str) -> None:
    mail = new_mail(to=[f"{local}@lab.test"])
    assert mail.send(postfix_mailer).accepted == (f"{local}@lab.test",)
    [copy] = postfix.copies(mail.message_id)
    assert unquoted(copy.recipients[0]) == unquoted(f"{local}@lab.test")


def unquoted(address: str) -> str:
    """Postfix notes it in quotes of its own."""
    return address.replace('"', "").replace("\\", "")
