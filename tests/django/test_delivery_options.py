"""What Django's messages wish of the server: their attribute `mailbridge_envelope_options`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.mail import EmailMessage

from mailbridge import DSN, EnvelopeOptions, InvalidMessage, NotSupported, Recipient
from mailbridge.testing import ScriptedServer
from mailbridge_django import EmailBackend
from tests.django.conftest import Use


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(keywords=["DSN", "MT-PRIORITY"]) as server:
        yield server


def message(delivery_options: Any) -> EmailMessage:
    made = EmailMessage("s", "text", "a@x.example", ["b@y.example"])
    if delivery_options is not None:
        made.mailbridge_envelope_options = delivery_options  # type: ignore[attr-defined]  # ours
    return made


def parameters(server: ScriptedServer) -> list[bytes]:
    lines = [line for connection in server.connections for line in connection.commands]
    return [line.partition(b">")[2].strip() for line in lines if line.startswith((b"MAIL", b"RCPT"))]


def test_options_reach_the_server_and_the_others_get_the_default(use: Use, server: ScriptedServer) -> None:
    use(server, dsn={"notify": "FAILURE"})
    delivery_options: EnvelopeOptions = {"dsn": {"ret": "HDRS", "envid": "7"}, "mt_priority": 3}
    own: EnvelopeOptions = {"dsn": DSN(), "recipient_options": [Recipient("b@y.example", notify="NEVER")]}
    assert [message(each).send() for each in (delivery_options, None, {}, own)] == [1, 1, 1, 1]
    default = [b"", b"NOTIFY=FAILURE ORCPT=rfc822;b@y.example"]
    assert parameters(server) == [
        *(b"RET=HDRS ENVID=7 MT-PRIORITY=3", b"ORCPT=rfc822;b@y.example"),
        *default,
        *default,
        *(b"", b"NOTIFY=NEVER"),
    ]


@pytest.mark.parametrize(
    ("delivery_options", "complaint"),
    [
        ({"dns": {}}, "Did you mean 'dsn'"),
        ({"dsn": {"ret": "SOME"}}, "HDRS or FULL"),
        ("dsn", "must be a dict, not str"),
        ({"recipient_options": {"z@y.example": {"notify": "NEVER"}}}, "no recipient"),
    ],
)
def test_options_that_make_no_sense_are_mistakes_of_the_program(
    use: Use, server: ScriptedServer, delivery_options: Any, complaint: str
) -> None:
    use(server)
    backend = EmailBackend(host=server.host, port=server.port, fail_silently=True)
    with pytest.raises(InvalidMessage, match=complaint):
        backend.send_messages([message(delivery_options)])
    assert server.messages == ()


def test_one_that_the_server_can_not_meet_does_not_stop_the_others(use: Use, server: ScriptedServer) -> None:
    use(server)
    backend = EmailBackend(host=server.host, port=server.port)
    batch = [message({"deliver_by": 5}), message({"deliver_by": 5, "prefer": ["DELIVERBY"]})]
    with pytest.raises(NotSupported, match="deliver_by needs DELIVERBY") as raised:
        backend.send_messages(batch)
    assert [type(each).__name__ for each in raised.value.results] == ["NotSupported", "SendResult"]  # type: ignore[attr-defined]
    assert len(server.messages) == 1
