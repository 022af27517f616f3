"""The server's name for a message, from the answers of servers in wide use."""

import pytest

from mailbridge.smtp.replies import queue_id


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2.0.0 Ok: queued as 4XyZabc123", "4XyZabc123"),
        ("2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 9F1B2C", "9F1B2C"),
        ("OK id=1tDXkQ-0001Ab-2C", "1tDXkQ-0001Ab-2C"),
        ("2.0.0 4A6B7C8d012345 Message accepted for delivery", "4A6B7C8d012345"),
        ("2.0.0 12ab34cd Message accepted for delivery", "12ab34cd"),
        (
            "2.6.0 <x@y> [InternalId=1234567890, Hostname=A.B.prod.outlook.com] 9 bytes Queued mail",
            "1234567890",
        ),
        ("2.0.0 OK  1732096800 ffacd0b85a97d-382 - gsmtp", "ffacd0b85a97d-382"),
        (
            "Ok 0100018f1c2d3e4f-aabbccdd-0000-1111-2222-333344445555-000000",
            "0100018f1c2d3e4f-aabbccdd-0000-1111-2222-333344445555-000000",
        ),
        ("thank you", None),
        ("", None),
    ],
)
def test_known_forms(text: str, found: str | None) -> None:
    assert queue_id(text) == found
