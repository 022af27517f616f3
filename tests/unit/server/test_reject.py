"""What a hook can say, and that nothing else gets into a reply."""

import pickle

import pytest

from mailbridge.server import Reject


def test_code_and_text() -> None:
    rejection = Reject(550, "5.7.1 not from there")
    assert (rejection.code, rejection.text, str(rejection)) == (
        550,
        "5.7.1 not from there",
        "550 5.7.1 not from there",
    )
    assert str(pickle.loads(pickle.dumps(rejection))) == str(rejection)


@pytest.mark.parametrize("code", [200, 250, 354, 399, 600, -1])
def test_only_refusals(code: int) -> None:
    with pytest.raises(ValueError, match="400 to 599"):
        Reject(code, "x")


@pytest.mark.parametrize("text", ["a\r\n250 OK", "a\nb", "\0", "caf\u00e9", "x" * 401])
def test_only_one_line_of_ascii(text: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        Reject(550, text)
