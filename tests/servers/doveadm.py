"""Dovecot's parser: a message is put into a maildir, and doveadm tells what IMAP would say of it.

ENVELOPE and BODYSTRUCTURE (RFC 3501 section 7.4.2) are Dovecot's; so are the decoded contents (BINARY,
RFC 3516) and header fields. Here only the syntax of IMAP is read, and what IMAP leaves to the client: encoded
words in names (RFC 2047), and file names (RFC 2231).
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from email.header import decode_header, make_header
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.servers.parsed_mail import Mailboxes, ParsedFile, ParsedMail, in_one_form
from tests.servers.process import UNPRIVILEGED, find_program, make_folder, require_root, require_user, tail

SECONDS = 20.0
CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/mail/log
protocols =
ssl = no
default_internal_user = dovecot
mail_location = maildir:{folder}/mail/box
# Of a message that the test puts in place of the last one, nothing may be remembered.
mail_cache_max_size = 0
maildir_very_dirty_syncs = no
"""
_TEXT_FIELDS = (
    *("imap.envelope", "imap.bodystructure", "hdr.subject.utf8", "hdr.x-custom.utf8"),
    *("hdr.sender", "hdr.reply-to"),
)
# A quoted string, a literal with its length, a bracket, or an atom (RFC 3501 section 9).
_TOKEN = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|\{(\d+)\}\r\n|([()])|([^\s()"{]+))', re.DOTALL)


class Doveadm:
    """Needs no running Dovecot. `parse` may be called again and again."""

    name = "doveadm"

    def __init__(self, folder: Path) -> None:
        require_root(self.name)
        self._program = find_program(self.name, "doveadm", package="dovecot-core")
        require_user(self.name, "dovecot")
        make_folder(folder)
        self._mail = make_folder(folder / "mail", owner=UNPRIVILEGED)
        self._configuration = folder / "dovecot.conf"
        self._configuration.write_text(CONFIGURATION.format(folder=folder))
        self._count = 0

    def parse(self, content: bytes) -> ParsedMail:
        self._deliver(content)
        read = self._fetch_texts(*_TEXT_FIELDS)
        envelope, structure, subject, custom = (read[name] for name in _TEXT_FIELDS[:4])
        parts = list(_leaves(_read(f"({structure})")))
        texts = {kind: section for section, kind, disposition, *_ in parts if disposition is None}
        bodies = {kind: self._fetch_content(section).decode() for kind, section in texts.items()}
        names = ("from", "sender", "reply-to", "to", "cc", "bcc")
        date_and_subject, boxes, ids = _split(_read(f"({envelope})"))
        assert len(date_and_subject) == 2
        return in_one_form(
            subject=subject,
            mailboxes={
                name: _mailboxes(found)
                for name, found in zip(names, boxes, strict=True)
                # Where there are none, ENVELOPE says those of From (RFC 3501 section 7.4.2).
                if found and read.get(f"hdr.{name}") != ""
            },
            message_id=ids[1] or "",
            in_reply_to=ids[0] or "",
            custom=custom or None,
            text=bodies.get("text/plain"),
            html=bodies.get("text/html"),
            calendar=bodies.get("text/calendar"),
            files=[
                ParsedFile(
                    filename=filename,
                    content_type=kind,
                    disposition=disposition,
                    content_id=content_id,
                    content=self._fetch_content(section),
                )
                for section, kind, disposition, filename, content_id in parts
                if disposition is not None
            ],
        )

    def _deliver(self, content: bytes) -> None:
        self._count += 1
        new = self._mail / "box" / "new"
        if not new.is_dir():
            for name in ("new", "cur", "tmp"):
                make_folder(self._mail / "box" / name, owner=UNPRIVILEGED)
            make_folder(self._mail / "box", owner=UNPRIVILEGED)
        for folder in (new, self._mail / "box" / "cur"):
            for old in folder.iterdir():
                old.unlink()
        (new / f"{self._count}.test").write_bytes(content)

    def _fetch_texts(self, *fields: str) -> dict[str, str]:
        (found,) = json.loads(self._doveadm("json", *fields))
        return dict(found)

    def _fetch_content(self, section: str) -> bytes:
        """Decoded, byte for byte."""
        field = f"binary.{section}"
        return self._doveadm("flow", field).removeprefix(f"{field}=".encode()).removesuffix(b"\n")

    def _doveadm(self, form: str, *fields: str) -> bytes:
        command = ["setpriv", "--reuid", UNPRIVILEGED, "--regid", "nogroup", "--clear-groups"]
        command += [str(self._program), "-c", str(self._configuration), "-f", form, "fetch"]
        done = subprocess.run(
            [*command, " ".join(fields), "all"],
            env={"USER": UNPRIVILEGED, "HOME": str(self._mail)},
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode or not done.stdout:
            raise AssertionError(f"doveadm fetch {fields}: {done!r}\n{self.log()}")
        return done.stdout

    def log(self) -> str:
        return tail(self._mail / "log")

    def stop(self) -> None:
        """Nothing runs."""


def _read(text: str) -> Any:
    """The list that `text` is: of strings, None for NIL, and lists."""
    stack: list[list[Any]] = [[]]
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        assert token is not None, text[position:]
        position = token.end()
        quoted, length, bracket, atom = token.groups()
        if bracket == "(":
            stack.append([])
        elif bracket == ")":
            closed = stack.pop()
            stack[-1].append(closed)
        elif length is not None:
            octets = text[position:].encode()[: int(length)]
            stack[-1].append(octets.decode())
            position += len(octets.decode())
        elif quoted is not None:
            stack[-1].append(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
        else:
            stack[-1].append(None if atom == "NIL" else atom)
    (read,) = stack[0]
    return read


def _split(envelope: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Date and subject, the six fields of addresses, In-Reply-To and Message-ID."""
    return envelope[:2], envelope[2:8], envelope[8:]


def _mailboxes(given: list[list[Any]]) -> Mailboxes:
    return tuple((_decoded(name), f"{local}@{domain}") for name, _, local, domain in given)


def _decoded(name: str | None) -> str:
    return str(make_header(decode_header(name))) if name else ""


def _leaves(part: Any, section: str = "") -> Iterator[tuple[str, str, str | None, str | None, str | None]]:
    """(section, content type, disposition, file name, Content-ID) of each part that is no container."""
    if isinstance(part[0], list):
        for number, child in enumerate(itertools.takewhile(lambda each: isinstance(each, list), part), 1):
            yield from _leaves(child, f"{section}.{number}".strip("."))
        return
    kind = f"{part[0]}/{part[1]}".lower()
    # Behind the size: lines of text, envelope, structure and lines of a message; then MD5 and disposition.
    extra = (
        {"text": 1, "message": 3}.get(part[0].lower(), 0)
        if kind.startswith(("text/", "message/rfc822"))
        else 0
    )
    disposition = part[7 + extra + 1]
    parameters = dict(zip(*[iter(disposition[1] or [])] * 2, strict=True)) if disposition else {}
    name = parameters.get("filename")
    if encoded := parameters.get("filename*"):
        name = unquote(encoded.split("'", 2)[2], errors="strict")
    yield section or "1", kind, disposition[0].lower() if disposition else None, name, part[3]
