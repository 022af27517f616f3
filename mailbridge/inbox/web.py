"""The inbox as a page and as JSON: a Flask application (extra `inbox`).

For development, on loopback. It asks for no login; what it does against web pages elsewhere that would
read it through the developer's browser is to answer only to its own host names.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, request, send_from_directory, url_for
from werkzeug.exceptions import HTTPException

from mailbridge.inbox import sandbox
from mailbridge.inbox.mail import Part
from mailbridge.inbox.store import Inbox, ReceivedMail

#: The longest that a request may wait for a mail, in seconds; proxies and browsers give up after more.
LONGEST_WAIT = 60.0
_PAGE = Path(__file__).parent / "page"
_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(inbox: Inbox, *, hosts: Iterable[str] = ()) -> Flask:
    """The application for `inbox`. It answers under `hosts` beside localhost, 127.0.0.1 and [::1].

    A page elsewhere can make a name of its own point to this machine; the browser would then take both
    for one site. So requests under other names are refused (421).
    """
    app = Flask(__name__, static_folder=None)
    names = {host.lower() for host in (*_HOSTS, *hosts)}

    @app.before_request
    def only_under_its_own_name() -> None:
        host = request.host.lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in names:
            abort(421, f"This inbox does not answer under the name {name!r}.")

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", _PAGE_POLICY)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.errorhandler(HTTPException)
    def as_json(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=error.description), error.code or 500

    _add_page(app)
    _add_list(app, inbox)
    _add_mail(app, inbox)
    return app


def _add_page(app: Flask) -> None:
    @app.get("/")
    def page() -> Response:
        return send_from_directory(_PAGE, "index.html")

    @app.get("/page/<name>")
    def part_of_page(name: str) -> Response:
        return send_from_directory(_PAGE, name)


def _add_list(app: Flask, inbox: Inbox) -> None:
    @app.get("/api/messages")
    def listing() -> Response:
        """All that match `search`, `to` and `subject`, newest first, at most `limit`."""
        limit = _number("limit", 200, most=1000)
        mails = inbox.mails(_text("search"), to=_text("to"), subject=_text("subject"))
        newest = max((mail.number for mail in inbox.mails()), default=0)
        return jsonify(
            messages=[summary(mail) for mail in mails[:limit]],
            matching=len(mails),
            total=len(inbox),
            newest=newest,
            version=inbox.version,
        )

    @app.get("/api/messages/wait")
    def wait() -> Response | tuple[str, int]:
        """The first mail with a number above `after` that matches; 204 if none comes in `timeout` seconds."""
        mail = inbox.wait(
            after=_number("after", 0, most=10**12),
            to=_text("to"),
            subject=_text("subject"),
            timeout=_seconds("timeout", 10.0),
        )
        return jsonify(whole(mail)) if mail is not None else ("", 204)

    @app.get("/api/changes")
    def changes() -> Response:
        """The version, once it is another than `version`: how the page keeps up to date."""
        version = inbox.wait_for_change(_number("version", 0, most=10**12), timeout=_seconds("timeout", 25.0))
        return jsonify(version=version)

    @app.delete("/api/messages")
    def clear() -> Response:
        return jsonify(deleted=inbox.clear())


def _add_mail(app: Flask, inbox: Inbox) -> None:
    def found(identity: str) -> ReceivedMail:
        mail = inbox.get(identity)
        if mail is None:
            abort(404, "There is no such message; it may have been deleted.")
        return mail

    @app.get("/api/messages/<identity>")
    def mail(identity: str) -> Response:
        return jsonify(whole(found(identity)))

    @app.delete("/api/messages/<identity>")
    def delete(identity: str) -> Response:
        if not inbox.delete(identity):
            abort(404, "There is no such message; it may have been deleted.")
        return jsonify(deleted=1)

    @app.get("/api/messages/<identity>/source")
    def source(identity: str) -> Response:
        """The mail as it was received, byte by byte."""
        response = Response(found(identity).content, content_type="text/plain; charset=utf-8")
        if "download" in request.args:
            response.headers.set("Content-Disposition", "attachment", filename=f"{identity}.eml")
        return response

    @app.get("/api/messages/<identity>/html")
    def html(identity: str) -> Response:
        """For the frame; with `remote=1` images and styles from elsewhere may be loaded."""
        is_remote = request.args.get("remote") == "1"
        response = Response(
            sandbox.document(found(identity).reading), content_type="text/html; charset=utf-8"
        )
        response.headers.update(sandbox.headers(remote=is_remote))
        return response

    @app.get("/api/messages/<identity>/attachments/<int:number>")
    def attachment(identity: str, number: int) -> Response:
        """Always as a file: what came by mail is never shown as a page of this site."""
        parts = found(identity).reading.parts
        if number >= len(parts):
            abort(404, "The message has no such attachment.")
        part = parts[number]
        response = Response(part.content, content_type="application/octet-stream")
        response.headers.set("Content-Disposition", "attachment", filename=part.filename)
        return response


def _text(name: str) -> str:
    return request.args.get(name, "").strip()


def _number(name: str, default: int, *, most: int) -> int:
    value = request.args.get(name, str(default))
    if not (value.isascii() and value.isdecimal()) or len(value) > 12:
        abort(400, f"{name} must be a whole number.")
    return min(int(value), most)


def _seconds(name: str, default: float) -> float:
    try:
        seconds = float(request.args.get(name, default))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        abort(400, f"{name} must lie between 0 and {LONGEST_WAIT:g} seconds.")
    return seconds


def summary(mail: ReceivedMail) -> dict[str, Any]:
    """What the list shows of a mail."""
    said = mail.reading
    return {
        "id": mail.id,
        "number": mail.number,
        "received_at": _moment(mail.received_at),
        "subject": said.subject,
        "from": said.sender or mail.sender,
        "to": said.to,
        "envelope": {"sender": mail.sender, "recipients": list(mail.recipients)},
        "preview": said.preview,
        "size": mail.size,
        "attachments": sum(not part.is_inline for part in said.parts),
    }


def whole(mail: ReceivedMail) -> dict[str, Any]:
    """All of a mail but the content of its attachments."""
    said = mail.reading
    return summary(mail) | {
        "cc": said.cc,
        "date": said.date,
        "message_id": said.message_id,
        "text": said.text,
        "html": said.html,
        "has_remote_content": sandbox.has_remote_content(said.html),
        "headers": [list(header) for header in said.headers],
        "left_out": list(said.left_out),
        "parts": [_part(mail, number, part) for number, part in enumerate(said.parts)],
        "client": mail.client,
        "user": mail.user,
        "is_encrypted": mail.is_encrypted,
        "source_url": url_for("source", identity=mail.id),
    }


def _part(mail: ReceivedMail, number: int, part: Part) -> dict[str, Any]:
    return {
        "filename": part.filename,
        "content_type": part.content_type,
        "size": part.size,
        "is_inline": part.is_inline,
        "url": url_for("attachment", identity=mail.id, number=number),
    }


def _moment(when: datetime) -> str:
    return when.isoformat(timespec="seconds")
