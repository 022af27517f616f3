"""A file that goes along with a message, and how it is read.

Read when it is attached, and only from bytes, a path object or an open file: a string never names a
file or a URL, since it may have come from outside.
"""

import mimetypes
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from mailbridge.errors import InvalidMessage
from mailbridge.message.headers import checked, is_message_id
from mailbridge.reply import printable
from mailbridge.secret import clears_locals

__all__ = ["Attachment", "Disposition", "AttachmentSource", "is_content_type", "read_attachment"]

Disposition = Literal["attachment", "inline"]
AttachmentSource = bytes | os.PathLike[str] | BinaryIO

_CONTENT_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)  # RFC 6838 section 4.2
_CHARSET = re.compile(r"[A-Za-z0-9._:+-]+")  # as IANA registers them; RFC 2978 section 2.3 allows a few more


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Attachment:
    """A file that goes along. With `content_id` (no brackets) the html can show it: `<img src="cid:…">`.

    `charset` says what a file of type text/… is written in. Raises InvalidMessage.
    """

    content: bytes
    filename: str | None = None
    content_type: str = "application/octet-stream"
    disposition: Disposition = "attachment"
    content_id: str | None = None
    charset: str | None = None

    def __repr__(self) -> str:
        return f"<Attachment of {len(self.content)} bytes, {self.content_type}>"

    def __post_init__(self) -> None:
        kind = self.content_type.lower()
        if not is_content_type(self.content_type) or kind.startswith("multipart/"):
            raise InvalidMessage(f"{self.content_type!r} can't be the content type of an attachment")
        if self.disposition not in ("attachment", "inline"):
            raise InvalidMessage(
                f"An attachment's disposition is attachment or inline, not {self.disposition!r}"
            )
        checked("filename", self.filename or "")
        if self.content_id is not None and not is_message_id(f"<{self.content_id}>"):
            raise InvalidMessage(f"{printable(self.content_id)!r} can't be a Content-ID")
        if self.charset is not None and not (kind.startswith("text/") and _CHARSET.fullmatch(self.charset)):
            raise InvalidMessage(f"{printable(self.charset)!r} can't be the charset of {self.content_type}")


Attachment.__init__ = clears_locals(Attachment.__init__)  # type: ignore[method-assign]  # it is generated


def read_attachment(
    source: AttachmentSource,
    *,
    filename: str | None,
    content_type: str | None,
    disposition: Disposition,
    content_id: str | None,
    charset: str | None,
) -> Attachment:
    """As `Message.attach` has it."""
    name = filename or _name_of(source)
    return Attachment(
        content=_content_of(source),
        filename=name,
        content_type=content_type or _guessed_type(name),
        disposition="inline" if content_id else disposition,
        content_id=content_id.removeprefix("<").removesuffix(">") if content_id else None,
        charset=charset,
    )


def is_content_type(text: str) -> bool:
    """Whether it is `type/subtype`, without parameters."""
    return _CONTENT_TYPE.fullmatch(text) is not None


def _name_of(source: object) -> str | None:
    name = source if isinstance(source, os.PathLike) else getattr(source, "name", None)
    return Path(name).name if isinstance(name, str | os.PathLike) else None


def _content_of(source: Any) -> bytes:
    if isinstance(source, os.PathLike):
        return Path(source).read_bytes()
    content = source.read() if hasattr(source, "read") else source
    if isinstance(content, bytearray | memoryview):
        return bytes(content)
    if not isinstance(content, bytes):
        # A string could be a name or the content; a name that came from outside would read any file.
        raise InvalidMessage(
            f"An attachment is given as bytes, a path object or a binary file, not {type(content).__name__}"
        )
    return content


def _guessed_type(filename: str | None) -> str:
    guessed, encoding = mimetypes.guess_type(filename or "")
    # With an encoding (.tar.gz) the type is that of what is inside.
    is_usable = guessed is not None and is_content_type(guessed) and not guessed.startswith("multipart/")
    return guessed if guessed and is_usable and not encoding else "application/octet-stream"
