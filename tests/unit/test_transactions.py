"""What the replies to RCPT mean when others have been accepted. (What MAIL says is tested with servers.)"""

from __future__ import annotations

import pytest

from mailbridge.results import Reply
from mailbridge.transactions import is_one_too_many


@pytest.mark.parametrize(
    ("code", "enhanced", "accepted", "expected"),
    [
        (452, (4, 5, 3), 1, True),  # Postfix
        (552, (5, 5, 3), 1, True),
        (452, None, 1, True),  # Exim
        (552, None, 100, True),  # RFC 821's code, from a server that has taken what it must
        (552, None, 99, False),
        (452, (4, 2, 2), 100, False),  # that mailbox is full
        (452, (4, 3, 1), 100, False),  # the server's disk is
        (552, (5, 2, 2), 100, False),
        (450, None, 100, False),
        (550, (5, 5, 3), 100, False),
    ],
)
def test_one_too_many(
    code: int, enhanced: tuple[int, int, int] | None, accepted: int, expected: bool
) -> None:
    assert is_one_too_many(Reply(code, ("said",), enhanced), accepted) is expected
