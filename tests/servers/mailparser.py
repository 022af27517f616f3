"""mailparser, Nodemailer's parser, from the npm registry: one child of Node.js that is fed over a pipe.

It has to be installed in the folder that the environment variable MAILBRIDGE_NPM names:

    npm install --prefix "$MAILBRIDGE_NPM" mailparser@3.9.8
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import subprocess
from pathlib import Path
from typing import Any

from tests.servers.parsed_mail import MAILBOX_FIELDS, Mailboxes, ParsedFile, ParsedMail, in_one_form
from tests.servers.process import STOP_SECONDS, MissingServerError, find_program, tail

VARIABLE = "MAILBRIDGE_NPM"
PACKAGE = "mailparser"
SECONDS = 20.0  # for one message; a busy machine may need some for the first


class Mailparser:
    """A running child. `parse` may be called again and again."""

    name = PACKAGE

    def __init__(self, folder: Path) -> None:
        node = find_program(PACKAGE, "node", package="nodejs")
        modules = os.environ.get(VARIABLE, "")
        if not modules or not (Path(modules) / "node_modules" / PACKAGE).is_dir():
            raise MissingServerError(
                PACKAGE, f"it needs {VARIABLE}, a folder into which npm has installed it"
            )
        self._errors = folder / "errors"
        # The kernel ends it with this process, however that ends.
        command = ["setpriv", "--pdeathsig", "TERM", str(node), str(Path(__file__).with_suffix(".mjs"))]
        with self._errors.open("wb") as errors:
            self._child = subprocess.Popen(
                [*command, str(Path(modules).resolve())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )

    def parse(self, content: bytes) -> ParsedMail:
        found = self._ask(content)
        # What is neither text nor html is an attachment to it; an invitation has no disposition.
        files = [each for each in found["attachments"] if each.get("contentDisposition")]
        others = [each for each in found["attachments"] if each not in files]
        calendar = b"".join(base64.b64decode(each["content"]) for each in others).decode()
        return in_one_form(
            subject=found.get("subject") or "",
            mailboxes={name: boxes for name in MAILBOX_FIELDS if (boxes := _mailboxes(found, name))},
            message_id=found.get("messageId") or "",
            in_reply_to=found.get("inReplyTo") or "",
            custom=found["custom"],
            text=found.get("text"),
            html=found.get("html") or None,
            calendar=calendar,
            files=[_file(each) for each in files],
        )

    def _ask(self, content: bytes) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(base64.b64encode(content) + b"\n")
        self._child.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            if not selector.select(SECONDS):
                raise AssertionError(f"{PACKAGE} does not answer\n{self.log()}")
        line = self._child.stdout.readline()  # it writes whole lines
        if not line:
            raise AssertionError(f"{PACKAGE} has ended\n{self.log()}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise AssertionError(f"{PACKAGE} can't read it: {found['error']}")
        return found

    def log(self) -> str:
        return tail(self._errors)

    def stop(self) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        self._child.terminate()
        try:
            self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(STOP_SECONDS)


def _mailboxes(found: dict[str, Any], name: str) -> Mailboxes:
    field = found.get("replyTo" if name == "reply-to" else name)
    return tuple((each["name"], each["address"]) for each in field["value"]) if field else ()


def _file(found: dict[str, Any]) -> ParsedFile:
    return ParsedFile(
        filename=found.get("filename"),
        content_type=found["contentType"],
        disposition=found["contentDisposition"],
        content_id=found.get("contentId"),
        content=base64.b64decode(found["content"]),
    )
