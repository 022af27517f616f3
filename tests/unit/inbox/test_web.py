"""mailbridge.inbox.web: the page and the JSON, as requests and answers."""

from __future__ import annotations

import threading
from typing import Any

import pytest

pytestmark = pytest.mark.needs("flask")

flask = pytest.importorskip("flask", reason="the core alone has no flask")

from mailbridge.inbox import Inbox, ReceivedMail  # noqa: E402  # after the question whether Flask is there
from mailbridge.inbox.web import create_app  # noqa: E402

CONTENT = (
    b"From: Shop <shop@example.com>\r\nTo: maja@example.org\r\nSubject: Order\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n"
    b'<img src="https://t.example/x.gif"><script>alert(1)</script>\r\n'
    b'--b\r\nContent-Type: text/html; name="page.html"\r\n'
    b'Content-Disposition: attachment; filename="page.html"\r\n\r\n<script>1</script>\r\n--b--\r\n'
)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def client(inbox: Inbox) -> Any:
    return create_app(inbox).test_client()


def put(inbox: Inbox, content: bytes = CONTENT) -> ReceivedMail:
    return inbox.add(content, sender="bounces@example.com", recipients=["maja@example.org"])


def test_the_page_and_its_parts(client: Any) -> None:
    with client.get("/") as page:
        assert page.status_code == 200
        assert b"/page/inbox.js" in page.data
    for name in ("inbox.js", "inbox.css"):
        with client.get(f"/page/{name}") as part:
            assert part.status_code == 200
    assert client.get("/page/../web.py").status_code == 404


def test_the_page_may_run_its_own_script_alone(client: Any) -> None:
    with client.get("/") as page:
        policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe-inline" not in policy
    assert "frame-src 'self'" in policy


def test_the_list(client: Any, inbox: Inbox) -> None:
    mail = put(inbox)
    found = client.get("/api/messages").json
    assert (found["total"], found["matching"], found["newest"]) == (1, 1, 1)
    (row,) = found["messages"]
    assert row["id"] == mail.id
    assert (row["subject"], row["from"]) == ("Order", "Shop <shop@example.com>")
    assert row["envelope"] == {"sender": "bounces@example.com", "recipients": ["maja@example.org"]}
    assert row["attachments"] == 1


HOSTILE = {
    "half characters": b"Subject: =?utf-7?q?+2AA-?=\r\nContent-Type: text/html; charset=utf-7\r\n\r\n+2AA-",
    "half characters in a name": b"Content-Disposition: attachment; filename*=utf-7''+2AA-\r\n\r\nx",
    "mixed parameters": b"Content-Disposition: attachment; filename*0*=''a; filename=b\r\n\r\nx",
    "a name with line ends": b"Content-Disposition: attachment; filename*=utf-8''a%0d%0aX:%20b%00\r\n\r\nx",
    "a name that is odd": b'Content-Disposition: attachment; filename="a\\"; \xe2\x80\xae=?\'*%"\r\n\r\nx',
    "raw bytes": b"Subject: \xff\xfe\0\r\nFrom: \xff\r\nContent-Type: \xff/\xff\r\n\r\n\xff\0",
    "dates": b"Date: Mon, 99 Foo 99999 99:99:99 +9999999999\r\n\r\n",
    "nested": b"".join(
        b"Content-Type: multipart/x; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(2000)
    ),
    "a long field": b"Subject: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_one_mail_does_not_stop_the_others(client: Any, inbox: Inbox, content: bytes) -> None:
    mail = inbox.add(content, sender='"\udcff\ud800\r\n"@x', recipients=["\udcff:;,@x", "a, b"], client="\0")
    other = put(inbox)
    for query in ("", "?search=a", "?subject=a"):
        assert client.get(f"/api/messages{query}").status_code == 200
    listed = client.get("/api/messages").json["messages"]
    assert [each["id"] for each in listed] == [other.id, mail.id]
    assert client.get("/api/messages/wait?subject=order&timeout=0").json["id"] == other.id
    said = client.get(f"/api/messages/{mail.id}").json
    for url in (
        f"/api/messages/{mail.id}/html",
        said["source_url"],
        *(part["url"] for part in said["parts"]),
    ):
        with client.get(url) as answer:
            assert answer.status_code == 200
            assert not {"X", "x"} & set(answer.headers.keys())
    assert client.delete(f"/api/messages/{mail.id}").json == {"deleted": 1}


def test_what_is_left_out_is_said(client: Any, inbox: Inbox) -> None:
    mail = put(inbox, HOSTILE["nested"])
    (sentence,) = client.get(f"/api/messages/{mail.id}").json["left_out"]
    assert "nested" in sentence
    assert client.get(f"/api/messages/{put(inbox).id}").json["left_out"] == []


def test_search(client: Any, inbox: Inbox) -> None:
    put(inbox)
    assert client.get("/api/messages?search=order").json["matching"] == 1
    assert client.get("/api/messages?search=nowhere").json["matching"] == 0
    assert client.get("/api/messages?to=maja@example.org&subject=ord").json["matching"] == 1


def test_one_mail(client: Any, inbox: Inbox) -> None:
    mail = put(inbox)
    found = client.get(f"/api/messages/{mail.id}").json
    assert found["has_remote_content"]
    assert ["Subject", "Order"] in found["headers"]
    (part,) = found["parts"]
    assert part["filename"] == "page.html"
    assert client.get(found["source_url"]).data == CONTENT
    assert client.get("/api/messages/unknown").status_code == 404


def test_an_attachment_comes_as_a_file_whatever_it_says_of_itself(client: Any, inbox: Inbox) -> None:
    mail = put(inbox)
    answer = client.get(f"/api/messages/{mail.id}/attachments/0")
    assert answer.data == b"<script>1</script>"
    assert answer.content_type == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert client.get(f"/api/messages/{mail.id}/attachments/1").status_code == 404


def test_the_source_is_no_page(client: Any, inbox: Inbox) -> None:
    answer = client.get(f"/api/messages/{put(inbox).id}/source")
    assert answer.content_type.startswith("text/plain")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(("query", "loads"), [("", False), ("?remote=1", True), ("?remote=yes", False)])
def test_the_html_has_a_policy_of_its_own(client: Any, inbox: Inbox, query: str, loads: bool) -> None:
    answer = client.get(f"/api/messages/{put(inbox).id}/html{query}")
    policy = answer.headers["Content-Security-Policy"]
    assert ("https:" in policy) is loads
    assert "sandbox" in policy
    assert "script" not in policy.replace("default-src", "")


def test_delete(client: Any, inbox: Inbox) -> None:
    mail = put(inbox)
    put(inbox)
    assert client.delete(f"/api/messages/{mail.id}").json == {"deleted": 1}
    assert client.delete(f"/api/messages/{mail.id}").status_code == 404
    assert client.delete("/api/messages").json == {"deleted": 1}
    assert len(inbox) == 0


def test_waiting_for_the_next_mail(client: Any, inbox: Inbox) -> None:
    newest = client.get("/api/messages").json["newest"]
    sender = threading.Thread(target=put, args=[inbox])
    sender.start()
    answer = client.get(f"/api/messages/wait?after={newest}&to=maja@example.org&timeout=20")
    sender.join()
    assert answer.json["subject"] == "Order"


def test_waiting_in_vain(client: Any) -> None:
    answer = client.get("/api/messages/wait?timeout=0")
    assert (answer.status_code, answer.data) == (204, b"")


def test_changes(client: Any, inbox: Inbox) -> None:
    before = client.get("/api/changes?version=-").status_code
    assert before == 400
    put(inbox)
    assert client.get("/api/changes?version=0&timeout=0").json == {"version": 1}


@pytest.mark.parametrize(
    "query", ["timeout=-1", "timeout=61", "timeout=nan", "timeout=x", "after=x", "after=-1"]
)
def test_nonsense_is_refused(client: Any, query: str) -> None:
    answer = client.get(f"/api/messages/wait?{query}")
    assert answer.status_code == 400
    assert "must" in answer.json["error"]


class TestHostNames:
    """A page elsewhere whose name was made to point here gets nothing."""

    @pytest.mark.parametrize("host", ["localhost:8025", "127.0.0.1:8025", "[::1]:8025", "localhost"])
    def test_its_own(self, client: Any, host: str) -> None:
        assert client.get("/api/messages", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8025", "localhost.evil.example", "10.0.0.1"]
    )
    def test_others(self, client: Any, host: str) -> None:
        assert client.get("/api/messages", headers={"Host": host}).status_code == 421
        assert client.delete("/api/messages", headers={"Host": host}).status_code == 421

    def test_one_that_was_named(self, inbox: Inbox) -> None:
        client = create_app(inbox, hosts=["dev.example"]).test_client()
        assert client.get("/api/messages", headers={"Host": "dev.example:8025"}).status_code == 200
