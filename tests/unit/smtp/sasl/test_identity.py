"""EXTERNAL and ANONYMOUS: one message with a name, or none."""

import pytest

from mailbridge.errors import ConfigurationError, ProtocolViolation
from mailbridge.smtp.sasl import Credentials, mechanism


@pytest.mark.parametrize("name", ["EXTERNAL", "ANONYMOUS"])
@pytest.mark.parametrize(("username", "sent"), [("", b""), ("fred@example.com", b"fred@example.com")])
def test_the_name_is_all_there_is(name, username, sent):
    exchange = mechanism(name, Credentials(username))
    assert exchange.initial() == sent
    exchange.finish("welcome")
    with pytest.raises(ProtocolViolation):
        exchange.step(b"")


def test_a_name_with_control_characters():
    with pytest.raises(ConfigurationError):
        Credentials("fred\0admin")
