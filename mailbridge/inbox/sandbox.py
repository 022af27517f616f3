"""A mail's html as a document of its own, for a frame that may do nothing.

Three walls: the frame's `sandbox` attribute, the same as a header of the document, and a policy under which
it may load nothing but images that stand in it. Nothing is parsed or cleaned: what html means is the
browser's to say, and the browser is what must be stopped.
"""

import base64
import re
from functools import cache

from mailbridge.inbox.mail import Reading

# Popups, so that a link in a mail can be tried: it opens a page of its own, which knows nothing of this one.
SANDBOX = "allow-popups allow-popups-to-escape-sandbox"
_CID = re.compile(r"cid:([^\"'\s)>]+)", re.IGNORECASE)
# What a data: address may say that it is. A mail's own word for its type could be anything.
_IMAGES = frozenset(f"image/{kind}" for kind in ("png", "jpeg", "gif", "webp", "avif", "bmp", "svg+xml"))
# Links open beside the inbox, never in the frame. The style is for mails that bring none.
_HEAD = (
    '<!doctype html><meta charset="utf-8"><base target="_blank">'
    "<style>body{margin:1rem 1.25rem;font-family:system-ui,sans-serif}</style>"
)
_LEFT_OUT = "<p><small>Not all images are shown ({} left out): together they are too large.</small></p>"
_ADDRESS = len("data:image/svg+xml;base64,") + 4  # characters, with the end of base64
_LOCAL = "data:"
_REMOTE = "data: http: https:"
#: Characters of the images that the mail brings along, each as often as it is shown. An image stands in the
#: document wherever it is named: a small mail could make a document of gigabytes.
MOST_IMAGE_CHARACTERS = 20 * 1024 * 1024


def policy(*, remote: bool) -> str:
    """The Content-Security-Policy of the document; with `remote`, images, styles and fonts may be loaded."""
    images = _REMOTE if remote else _LOCAL
    rest = "http: https:" if remote else ""
    return (
        f"default-src 'none'; img-src {images}; media-src {images}; font-src {images};"
        f" style-src 'unsafe-inline' {rest}; base-uri 'none'; form-action 'none';"
        f" frame-ancestors 'self'; sandbox {SANDBOX}"
    )


def headers(*, remote: bool) -> dict[str, str]:
    """The header fields that the document is served with."""
    return {
        "Content-Security-Policy": policy(remote=remote),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-DNS-Prefetch-Control": "off",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def document(reading: Reading) -> str:
    """The html, with the images that the mail brings along put in their places, while there is room."""
    images = {part.content_id.lower(): part for part in reading.parts if part.content_type in _IMAGES}
    left = MOST_IMAGE_CHARACTERS
    left_out = 0

    @cache
    def address(name: str) -> str:
        part = images[name]
        return f"data:{part.content_type};base64,{base64.b64encode(part.content).decode('ascii')}"

    def put(found: re.Match[str]) -> str:
        nonlocal left, left_out
        part = images.get(found[1].lower())
        if part is None:
            return found[0]
        if part.size * 4 // 3 + _ADDRESS > left:
            left_out += 1
            return found[0]
        shown = address(found[1].lower())
        left -= len(shown)
        return shown

    html = _CID.sub(put, reading.html)
    return _HEAD + (_LEFT_OUT.format(left_out) if left_out else "") + html


def has_remote_content(html: str) -> bool:
    """Whether the html seems to load something from elsewhere; only to offer it, no wall depends on it."""
    return _LOADS.search(html) is not None


_LOADS = re.compile(
    r"(?:src|srcset|background|poster)\s*+=\s*+[\"']?\s*+(?:https?:)?//"
    r"|url\(\s*+[\"']?\s*+(?:https?:)?//|<link\b|@import",
    re.IGNORECASE,
)
