"""LOGIN: the order of the prompts counts, not what they say."""

import pytest

from mailbridge.errors import ProtocolViolation
from mailbridge.secret import Secret
from mailbridge.smtp.sasl import Credentials, mechanism


@pytest.mark.parametrize(
    "prompts",
    [(b"Username:", b"Password:"), (b"User Name\0", b"Password\0"), (b"", b""), (b"Password:", b"Username:")],
)
def test_name_then_password_whatever_is_asked(prompts):
    exchange = mechanism("LOGIN", Credentials("jürgen", Secret("pä§s")))
    assert exchange.initial() is None
    assert [exchange.step(prompt) for prompt in prompts] == ["jürgen".encode(), "pä§s".encode()]
    for _ in range(2):
        with pytest.raises(ProtocolViolation, match="LOGIN") as caught:
            exchange.step(b"Password:")
        assert caught.value.stage == "auth"
