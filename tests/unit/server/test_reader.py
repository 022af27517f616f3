"""Lines and mails out of bytes that come in any pieces: exact ends, hard bounds, one order."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.server.budget import Budget
from mailbridge.server.reader import MAX_LINE, Farewell, Input, _Content
from mailbridge.server.reject import Reject

PLENTY = 1_000_000


def ignore(*_: object) -> None:
    """Nobody pauses, and memory is free."""


def run(feed: list[bytes], read: Callable[[Input], Any], *, ends: bool = True, seconds: float = 5.0) -> Any:
    """What `read` gives while these pieces come in, each in a turn of its own."""

    async def main() -> Any:
        source = Input(seconds=seconds, pause=ignore, resume=ignore)
        reading = asyncio.ensure_future(read(source))
        for piece in feed:
            await asyncio.sleep(0)
            source.feed(piece)
        if ends:
            source.feed_eof()
        return await reading

    return asyncio.run(main())


async def lines(source: Input) -> list[bytes]:
    found = []
    try:
        while True:
            found.append(await source.readuntil())
    except asyncio.CancelledError:
        return found


def content(limit: int = PLENTY, take: Callable[[int], None] = ignore) -> Callable[[Input], Any]:
    async def read(source: Input) -> tuple[bytes, list[bytes]]:
        return await source.content(limit, take), await lines(source)

    return read


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(bounds)]


places = st.lists(st.integers(min_value=0, max_value=10_000), max_size=8)
clean_lines = st.lists(st.binary(max_size=20).map(lambda b: b.translate(None, b"\r\n\0")), max_size=8)


@given(clean_lines, places)
def test_lines_are_what_was_sent_however_it_was_cut(sent: list[bytes], at: list[int]) -> None:
    data = b"".join(line + b"\r\n" for line in sent)
    assert run(cut(data, at), lines) == [line + b"\r\n" for line in sent]


@given(clean_lines, clean_lines, places)
def test_a_mail_is_what_was_sent_however_it_was_cut(
    mail: list[bytes], after: list[bytes], at: list[int]
) -> None:
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in mail)
    data = stuffed + b".\r\n" + b"".join(line + b"\r\n" for line in after)
    got, rest = run(cut(data, at), content())
    assert got == b"".join(line + b"\r\n" for line in mail)
    assert rest == [line + b"\r\n" for line in after]


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n"]), max_size=12).map(b"".join), places)
def test_only_crlf_dot_crlf_ends_a_mail(body: bytes, at: list[int]) -> None:
    data = body + b"\r\n.\r\n"
    end = (b"\r\n" + data).index(b"\r\n.\r\n")
    kept = (b"\r\n" + data)[: end + 2]
    is_clean = kept.count(b"\r\n") == kept.count(b"\r") == kept.count(b"\n")

    async def read(source: Input) -> bytes:
        return await source.content(PLENTY, ignore)

    if is_clean:
        assert run(cut(data, at), read) == kept.replace(b"\r\n.", b"\r\n")[2:]
    else:
        with pytest.raises(Reject, match="Bare"):
            run(cut(data, at), read)


@pytest.mark.parametrize("line", [b"a\n", b"\n", b"a\rb\r\n", b"\0\r\n", b"a\r\r\n"])
def test_a_line_that_is_none(line: bytes) -> None:
    with pytest.raises(Farewell, match="521") as caught:
        run([line], lines)
    assert caught.value.reply.startswith("521 ")


def test_the_longest_line() -> None:
    longest = b"x" * (MAX_LINE - 2) + b"\r\n"
    assert run([longest], lines) == [longest]
    for too_long in ([b"x" + longest], [b"x" * MAX_LINE]):
        with pytest.raises(Farewell, match="too long"):
            run(too_long, lines)


def test_the_end_of_the_input_ends_the_reader_after_what_is_there() -> None:
    assert run([b"a\r\nb"], lines) == [b"a\r\n"]


def test_a_mail_that_was_cut_off_is_none() -> None:
    with pytest.raises(asyncio.CancelledError):
        run([b"a\r\n.\r"], content())


@pytest.mark.parametrize("read", [lines, content()], ids=["line", "mail"])
def test_silence(read: Callable[[Input], Any]) -> None:
    with pytest.raises(Farewell, match=r"421 4\.4\.2"):
        run([b"x"], read, ends=False, seconds=0.01)


def test_a_mail_may_take_its_time_as_long_as_it_comes() -> None:
    """64 KiB per time limit: eight of them within twenty limits' worth of pauses."""

    async def main() -> int:
        source = Input(seconds=0.2, pause=ignore, resume=ignore)
        reading = asyncio.ensure_future(source.content(PLENTY, ignore))
        for _ in range(8):
            await asyncio.sleep(0.05)
            source.feed(b"x" * 65_536)
        source.feed(b"\r\n.\r\n")
        return len(await reading)

    assert asyncio.run(main()) == 8 * 65_536 + 2


class TestSizes:
    @pytest.mark.parametrize(("limit", "is_taken"), [(10, True), (9, False)])
    def test_dots_that_stuff_do_not_count(self, limit: int, is_taken: bool) -> None:
        data = [b"..\r\n..\r\n" + b"ab\r\n" + b".\r\n"]
        if is_taken:
            assert run(data, content(limit))[0] == b".\r\n.\r\nab\r\n"
        else:
            with pytest.raises(Reject) as caught:
                run(data, content(limit))
            assert caught.value.code == 552

    def test_too_much_is_read_to_its_end(self) -> None:
        async def read(source: Input) -> list[bytes]:
            with pytest.raises(Reject, match="too big"):
                await source.content(1000, ignore)
            return await lines(source)

        assert run([b"x" * 1000] * 50 + [b"\r", b"\n.", b"\r\nNOOP\r\n"], read) == [b"NOOP\r\n"]

    def test_too_much_is_not_kept(self) -> None:
        async def main() -> None:
            content = _Content(Input(seconds=5, pause=ignore, resume=ignore), 1000, ignore)
            for _ in range(3):
                content._add(b"x" * 1000)
            assert len(content._kept) < 10

        asyncio.run(main())

    def test_far_too_much_is_not(self) -> None:
        with pytest.raises(Farewell, match="far too big"):
            run([b"x" * 65_536] * 3, content(1000), ends=False)

    def test_no_memory(self) -> None:
        budget = Budget(2500)

        async def read(source: Input) -> list[bytes]:
            with budget.share() as take, pytest.raises(Reject, match="memory"):
                await source.content(PLENTY, take)
            return await lines(source)

        assert run([b"x" * 1000] * 3 + [b"\r\n.\r\nNOOP\r\n"], read) == [b"NOOP\r\n"]
        assert budget.lent == 0


def test_dismissal_comes_before_the_next_command_and_not_within_a_mail() -> None:
    async def read(source: Input) -> bytes:
        got = await source.content(PLENTY, ignore)
        with pytest.raises(Farewell, match="over"):
            await source.readuntil()
        return got

    async def main() -> bytes:
        source = Input(seconds=5, pause=ignore, resume=ignore)
        reading = asyncio.ensure_future(read(source))
        await asyncio.sleep(0)
        source.dismiss(Farewell("421 over", "first"))
        source.dismiss(Farewell("421 twice", "second"))
        source.feed(b"x\r\n.\r\nNOOP\r\n")
        return await reading

    assert asyncio.run(main()) == b"x\r\n"


def test_a_sender_is_paused_and_resumed() -> None:
    calls: list[str] = []

    async def main() -> None:
        source = Input(seconds=5, pause=lambda: calls.append("pause"), resume=lambda: calls.append("resume"))
        source.feed(b"x" * 65_535)
        assert calls == []
        source.feed(b"x")
        assert calls == ["pause"]
        reading = asyncio.ensure_future(source.content(PLENTY, ignore))
        await asyncio.sleep(0)
        assert calls == ["pause", "resume"]
        source.feed(b"\r\n.\r\n")
        await reading

    asyncio.run(main())


def test_draining_ends_with_the_input_with_time_or_with_enough() -> None:
    async def main() -> None:
        for end in (lambda source: source.feed_eof(), lambda source: source.feed(b"x" * 2_000_000)):
            source = Input(seconds=5, pause=ignore, resume=ignore)
            source.feed(b"rest")
            draining = asyncio.ensure_future(source.drain(60))
            await asyncio.sleep(0)
            source.feed(b"more")
            await asyncio.sleep(0)
            assert not draining.done()
            end(source)
            await draining
            assert source.is_empty
        await Input(seconds=5, pause=ignore, resume=ignore).drain(0.01)

    asyncio.run(main())
