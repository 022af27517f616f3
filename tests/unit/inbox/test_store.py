"""mailbridge.inbox.store: keeping, finding, waiting, and the Maildir."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.inbox import Inbox, Reading, ReceivedMail, maildir, read, store

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def put(
    inbox: Inbox, subject: str = "Hello", to: str = "maja@example.org", text: str = "text"
) -> ReceivedMail:
    content = f"From: shop@example.com\r\nSubject: {subject}\r\n\r\n{text}\r\n".encode()
    return inbox.add(
        content, sender="bounces@example.com", recipients=[to], client="127.0.0.1:4", user="shop"
    )


def _sparse(path: Path, _: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


#: What somebody could put into a Maildir: called with its path, and the path of a file elsewhere.
HOSTILE: dict[str, Callable[[Path, Path], object]] = {
    "folder": lambda path, _: path.mkdir(),
    "FIFO": lambda path, _: os.mkfifo(path),
    "dangling link": lambda path, _: path.symlink_to("/nowhere/at/all"),
    "link to itself": lambda path, _: path.symlink_to(path),
    "link to a file elsewhere": lambda path, secret: path.symlink_to(secret),
    "link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "dot file": lambda path, _: path.with_name(".odd").write_text("Subject: hidden"),
    "too large": lambda path, _: path.write_bytes(b"x" * 10_001),
    "sparse": _sparse,
}


class TestMemory:
    def test_what_was_put_in(self) -> None:
        inbox = Inbox(now=lambda: NOON)
        mail = put(inbox)
        assert inbox.get(mail.id) is mail
        assert (mail.number, mail.received_at, mail.sender) == (1, NOON, "bounces@example.com")
        assert mail.reading.subject == "Hello"
        assert len(inbox) == 1

    def test_newest_first(self) -> None:
        inbox = Inbox()
        mails = [put(inbox, str(number)) for number in range(3)]
        assert inbox.mails() == mails[::-1]

    def test_the_oldest_go_when_there_are_too_many(self) -> None:
        inbox = Inbox(limit=2)
        mails = [put(inbox, str(number)) for number in range(3)]
        assert inbox.mails() == [mails[2], mails[1]]
        assert inbox.get(mails[0].id) is None

    def test_the_oldest_go_when_they_are_too_large(self) -> None:
        inbox = Inbox(limit_bytes=250)
        put(inbox, text="x" * 200)
        second = put(inbox, text="y" * 200)
        third = put(inbox)
        assert inbox.mails() == [third]
        assert inbox.get(second.id) is None

    def test_one_mail_is_kept_however_large(self) -> None:
        inbox = Inbox(limit_bytes=10)
        mail = put(inbox)
        assert inbox.mails() == [mail]

    def test_delete(self) -> None:
        inbox = Inbox()
        one, other = put(inbox), put(inbox)
        assert inbox.delete(one.id)
        assert not inbox.delete(one.id)
        assert inbox.mails() == [other]
        assert inbox.clear() == 1
        assert len(inbox) == 0

    def test_deleting_makes_room(self) -> None:
        inbox = Inbox(limit_bytes=300)
        first = put(inbox, text="x" * 200)
        inbox.delete(first.id)
        kept = [put(inbox), put(inbox)]
        assert inbox.mails() == kept[::-1]

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ("", True),
            ("HELLO", True),
            ("hello text", True),
            ("hello nowhere", False),
            ("maja@example.org", True),
            ("bounces", True),
        ],
    )
    def test_search(self, words: str, found: bool) -> None:
        inbox = Inbox()
        put(inbox)
        assert bool(inbox.mails(words)) is found

    def test_by_recipient_and_subject(self) -> None:
        inbox = Inbox()
        mail = put(inbox, "Reset your password", "Maja@example.org")
        put(inbox, "Other")
        assert inbox.mails(to="maja@EXAMPLE.org", subject="reset") == [mail]
        assert inbox.mails(to="maja") == []


class TestWaiting:
    def test_a_mail_that_is_there_already(self) -> None:
        inbox = Inbox()
        mail = put(inbox)
        assert inbox.wait(timeout=0) is mail
        assert inbox.wait(after=mail.number, timeout=0) is None

    def test_the_mail_that_comes(self) -> None:
        inbox = Inbox()
        put(inbox, to="other@example.org")
        sender = threading.Thread(target=lambda: (put(inbox), put(inbox, to="lin@example.org")))
        sender.start()
        found = inbox.wait(to="lin@example.org", timeout=20)
        sender.join()
        assert found is not None
        assert found.number == 3

    def test_the_oldest_that_matches_is_given(self) -> None:
        inbox = Inbox()
        first = put(inbox)
        put(inbox)
        assert inbox.wait(timeout=0) is first

    def test_a_change_is_told(self) -> None:
        inbox = Inbox()
        before = inbox.version
        sender = threading.Thread(target=put, args=[inbox])
        sender.start()
        assert inbox.wait_for_change(before, timeout=20) != before
        sender.join()
        assert inbox.wait_for_change(inbox.version, timeout=0) == inbox.version

    def test_nobody_is_held_while_a_mail_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        is_reading, go_on = threading.Event(), threading.Event()

        def slowly(content: bytes) -> Reading:
            is_reading.set()
            assert go_on.wait(20)
            return read(content)

        monkeypatch.setattr(store, "read", slowly)
        inbox = Inbox()
        put(inbox, "slow")
        with ThreadPoolExecutor(3) as threads:
            waiter = threads.submit(inbox.wait, subject="slow", timeout=20)
            assert is_reading.wait(20)
            try:
                assert threads.submit(put, inbox).result(timeout=10).number == 2
                assert threads.submit(inbox.wait_for_change, 0).result(timeout=10) == inbox.version
            finally:
                go_on.set()
            found = waiter.result(timeout=20)
        assert found is not None
        assert found.number == 1

    def test_a_mail_is_asked_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[int] = []
        matches = ReceivedMail.matches

        def counted(mail: ReceivedMail, *words: str) -> bool:
            asked.append(mail.number)
            return matches(mail, *words)

        monkeypatch.setattr(ReceivedMail, "matches", counted)
        inbox = Inbox()
        put(inbox)
        sender = threading.Thread(target=lambda: (put(inbox), put(inbox, to="lin@example.org")))
        sender.start()
        assert inbox.wait(to="lin@example.org", timeout=20) is not None
        sender.join()
        assert asked == [1, 2, 3]

    def test_closing_lets_everyone_go(self) -> None:
        inbox = Inbox()
        results: list[object] = []
        waiter = threading.Thread(target=lambda: results.append(inbox.wait(timeout=30)))
        waiter.start()
        inbox.close()
        waiter.join(20)
        assert results == [None]


class TestMaildir:
    def test_a_mail_is_a_file(self, tmp_path: Path) -> None:
        inbox = Inbox(tmp_path / "box")
        put(inbox)
        (file,) = (tmp_path / "box" / "new").iterdir()
        lines = file.read_bytes().splitlines()
        assert lines[:2] == [b"Return-Path: <bounces@example.com>", b"X-Original-To: maja@example.org"]
        assert b"Subject: Hello" in lines

    def test_it_is_there_again_after_a_restart(self, tmp_path: Path) -> None:
        before = Inbox(tmp_path / "box")
        mails = [put(before, "one"), put(before, "two")]
        after = Inbox(tmp_path / "box").mails()
        assert {mail.content for mail in after} == {mail.content for mail in mails}
        assert {mail.recipients for mail in after} == {("maja@example.org",)}
        assert {(mail.sender, mail.client, mail.user) for mail in after} == {
            ("bounces@example.com", "127.0.0.1:4", "shop")
        }

    def test_the_order_is_that_of_arrival(self, tmp_path: Path) -> None:
        before = Inbox(tmp_path / "box")
        for number, subject in enumerate(("third", "first", "second")):
            put(before, subject)
            (new,) = [f for f in (tmp_path / "box" / "new").iterdir() if subject.encode() in f.read_bytes()]
            moment = 1_000_000 + (number - 1) % 3
            os.utime(new, (moment, moment))
        subjects = [mail.reading.subject for mail in Inbox(tmp_path / "box").mails()]
        assert subjects == ["third", "second", "first"]

    def test_deleting_deletes_the_file(self, tmp_path: Path) -> None:
        inbox = Inbox(tmp_path / "box")
        mail = put(inbox)
        inbox.delete(mail.id)
        assert list((tmp_path / "box" / "new").iterdir()) == []

    def test_the_file_of_a_dropped_mail_stays(self, tmp_path: Path) -> None:
        inbox = Inbox(tmp_path / "box", limit=1)
        put(inbox)
        put(inbox)
        assert len(list((tmp_path / "box" / "new").iterdir())) == 2
        assert len(inbox) == 1

    def test_a_file_from_elsewhere_is_read(self, tmp_path: Path) -> None:
        Inbox(tmp_path / "box")
        (tmp_path / "box" / "cur" / "1.2.3:2,S").write_bytes(b"Subject: from fetchmail\n\nhello\n")
        (mail,) = Inbox(tmp_path / "box").mails()
        assert mail.reading.subject == "from fetchmail"
        assert mail.recipients == ()

    @pytest.mark.parametrize("kind", HOSTILE)
    def test_what_is_no_mail_is_passed_over(
        self, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        box = tmp_path / "box"
        put(Inbox(box), "kept")
        secret = tmp_path / "secret"
        secret.write_text("Subject: secret")
        HOSTILE[kind](box / "new" / "odd", secret)
        before = sorted((box / "new").iterdir())

        inbox = Inbox(box, limit_bytes=10_000)
        assert [mail.reading.subject for mail in inbox.mails()] == ["kept"]
        (line,) = caplog.records
        assert (line.name, line.levelname) == ("mailbridge.inbox", "WARNING")
        assert "odd in the Maildir was passed over: it is" in line.getMessage().replace("its name", "it is")

        assert put(inbox, "more").number == 2
        assert inbox.clear() == 2
        assert len(list((box / "new").iterdir())) == len(before) - 1
        assert secret.exists()

    def test_what_takes_the_place_of_a_file_is_not_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        put(Inbox(tmp_path / "box"))
        (file,) = (tmp_path / "box" / "new").iterdir()
        (tmp_path / "secret").write_text("Subject: secret")
        really = os.open
        swaps = [lambda: file.symlink_to(tmp_path / "secret"), lambda: os.mkfifo(file), lambda: None]
        for swap in swaps:

            def opened(path: Path, flags: int, swap: Callable[[], None] = swap) -> int:
                if path == file:
                    file.unlink()
                    swap()
                return really(path, flags)

            file.unlink()
            file.write_text("Subject: a mail")
            with monkeypatch.context() as patch:
                patch.setattr(maildir.os, "open", opened)
                assert len(Inbox(tmp_path / "box")) == 0
            file.touch()
        assert len(caplog.records) == len(swaps)

    def test_only_what_is_new_enough_is_opened(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        put(Inbox(tmp_path / "box"))
        old = tmp_path / "box" / "cur" / "old"
        old.write_bytes(b"x" * 1000)
        os.utime(old, (0, 0))
        assert len(Inbox(tmp_path / "box", limit=1, limit_bytes=500)) == 1
        assert caplog.records == []

    def test_a_folder_that_was_made_before(self, tmp_path: Path) -> None:
        put(Inbox(tmp_path))
        assert len(Inbox(tmp_path)) == 1

    def test_many_recipients_are_there_after_a_restart(self, tmp_path: Path) -> None:
        everyone = [f"person{number}@example.org" for number in range(1000)]
        Inbox(tmp_path / "box").add(b"\r\n", sender="", recipients=everyone)
        (mail,) = Inbox(tmp_path / "box").mails()
        assert mail.recipients == tuple(everyone)

    @pytest.mark.parametrize("moment", [-(2**40), 2**33, 2**40])
    def test_times_of_files(self, moment: int, tmp_path: Path) -> None:
        put(Inbox(tmp_path / "box"))
        (file,) = (tmp_path / "box" / "new").iterdir()
        os.utime(file, (moment, moment))
        (mail,) = Inbox(tmp_path / "box").mails()
        assert mail.received_at.isoformat()

    def test_many_threads_at_a_time(self, tmp_path: Path) -> None:
        inbox = Inbox(tmp_path / "box")

        def come_and_go(number: int) -> None:
            for count in range(20):
                mail = put(inbox, f"{number} {count}")
                if count % 2:
                    inbox.delete(mail.id)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(come_and_go, range(8)))
        assert len(inbox) == len(list((tmp_path / "box" / "new").iterdir())) == 80

    @given(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=40), max_size=5)
    )
    def test_the_bytes_are_those_that_were_received(self, lines: list[str]) -> None:
        content = "".join(f"{line}\r\n" for line in ("Subject: x", "", *lines)).encode()
        with TemporaryDirectory() as folder:
            Inbox(Path(folder) / "box").add(content, sender="", recipients=["a@b.example"])
            (mail,) = Inbox(Path(folder) / "box").mails()
        assert mail.content == content
