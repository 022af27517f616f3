"""The dialogue in the log: masked, one line each."""

import logging

import pytest

from mailbridge.client.transcript import DialogueLog


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "mailbridge.smtp")
    return caplog


def test_one_line_for_each_line_with_the_connection_id(lines: pytest.LogCaptureFixture) -> None:
    log = DialogueLog("c1")
    log.sent(["EHLO me", "RSET"])
    log.received(b"250-a\r\n250 b\r\n")
    log.content(7)
    log.received(b"")
    assert lines.messages == [
        "[c1] C: EHLO me",
        "[c1] C: RSET",
        "[c1] S: 250-a",
        "[c1] S: 250 b",
        "[c1] C: <7 bytes of content>",
        "[c1] S: <end of file>",
    ]
    assert all(record.connection_id == "c1" for record in lines.records)  # type: ignore[attr-defined]


def test_answers_to_secrets_show_their_code_only(lines: pytest.LogCaptureFixture) -> None:
    log = DialogueLog("c1")
    log.sent(["AUTH PLAIN ***"])
    log.received(b"535 what is hunter2\r\n")
    log.sent(["RSET"])
    log.received(b"250 ok\r\n")
    assert lines.messages[1:] == ["[c1] S: 535 ***", "[c1] C: RSET", "[c1] S: 250 ok"]


def test_control_characters_are_escaped(lines: pytest.LogCaptureFixture) -> None:
    DialogueLog("c1").received(b"250 \x1b[31m\x00\xff\r\n")
    assert lines.messages == [r"[c1] S: 250 \x1b[31m\x00\xff"]


def test_an_answer_to_a_secret_that_comes_in_pieces_shows_nothing_of_them(
    lines: pytest.LogCaptureFixture,
) -> None:
    log = DialogueLog("c1")
    log.sent(["AUTH PLAIN ***"])
    for piece in (b"535 5", b".7.8 hun", b"ter2\r\n", b"250 hunter2\r\n"):
        log.received(piece)
    assert lines.messages[1:] == ["[c1] S: 535 ***", "[c1] S: ***"]


def test_the_mask_is_put_over_each_line_of_the_server(lines: pytest.LogCaptureFixture) -> None:
    log = DialogueLog("c1", mask=lambda text: text.replace("hunter2", "***"))
    log.received(b"250-hunter2\r\n250 ok\r\n")
    assert lines.messages == ["[c1] S: 250-***", "[c1] S: 250 ok"]


@pytest.mark.parametrize("cut", range(1, len(b"250 is hunter2\r\n")))
def test_lines_are_masked_whole_wherever_a_read_ends(cut: int, lines: pytest.LogCaptureFixture) -> None:
    said = b"250 is hunter2\r\n"
    log = DialogueLog("c1", mask=lambda text: text.replace("hunter2", "***"))
    log.received(said[:cut])
    log.sent(["NOOP"])
    log.received(said[cut:])
    assert lines.messages == ["[c1] C: NOOP", "[c1] S: 250 is ***"]


def test_the_rest_of_a_hidden_line_stays_hidden(lines: pytest.LogCaptureFixture) -> None:
    log = DialogueLog("c1")
    log.sent(["AUTH PLAIN ***"])
    log.received(b"535 is hun")
    log.sent(["NOOP"])
    log.received(b"ter2\r\n")
    assert "ter2" not in lines.text


def test_an_unfinished_line_shows_its_size(lines: pytest.LogCaptureFixture) -> None:
    log = DialogueLog("c1")
    log.received(b"250 is hunt")
    log.interrupted()
    log.received(b"250 is hun")
    log.received(b"")
    assert lines.messages == [
        "[c1] S: <11 bytes of an unfinished line>",
        "[c1] S: <10 bytes of an unfinished line>",
        "[c1] S: <end of file>",
    ]
