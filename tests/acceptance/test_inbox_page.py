"""The page of the inbox in a real browser: it keeps itself up to date, and what mails bring cannot act.

A site of somebody else (a server that counts its visitors) stands in for all that a mail could load.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.fixtures import ask_for
from tests.servers.process import wait_until

if TYPE_CHECKING:
    from mailbridge.inbox.server import InboxServer
    from tests.servers.chromium import Chromium

pytestmark = [pytest.mark.needs("flask"), pytest.mark.needs("aiosmtpd"), pytest.mark.needs("selenium")]

ROOT = Path(__file__).parent.parent.parent
SECONDS = 20.0  # a browser on a busy machine
PDF = bytes(range(256)) * 400
PIXEL = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"
# What the contact form of the Django site sends, from a process of its own.
VISIT = """
import django
django.setup()
from django.core.mail import EmailMultiAlternatives
from django.test import Client
answer = Client(headers={"host": "localhost"}).post("/", {
    "name": "Ann", "email": "ann@x.example", "subject": "Open on Sunday?", "text": "Are you?"})
assert answer.status_code == 302, answer
"""


class OtherSite:
    """Somebody else's web server: `visits` are the paths that were asked for, beside its own page."""

    def __init__(self) -> None:
        self.visits: list[str] = []
        self.page = ""
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_page = self.path == "/page"
                if not is_page:
                    site.visits.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "text/html" if is_page else "image/gif")
                self.end_headers()
                self.wfile.write(site.page.encode() if is_page else PIXEL)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    from tests.servers.chromium import Chromium

    with ask_for(Chromium) as browser:
        yield browser


@pytest.fixture
def other_site() -> Iterator[OtherSite]:
    site = OtherSite()
    yield site
    site.close()


@pytest.fixture
def server() -> Iterator[InboxServer]:
    from mailbridge.inbox import Inbox
    from mailbridge.inbox.server import InboxServer

    with InboxServer(Inbox(), http_port=0) as server:
        yield server


@pytest.fixture
def page(browser: Chromium, server: InboxServer) -> Iterator[Any]:
    """Selenium's driver, with the page open in a wide window."""
    from tests.servers.chromium import WIDE

    driver = browser.driver
    driver.set_window_size(*WIDE)
    driver.get(server.page_url)
    browser.complaints()
    yield driver
    driver.get("about:blank")


def until(question: Callable[[], Any]) -> None:
    assert wait_until(lambda: bool(question()), SECONDS, every=0.05)


def text_of(page: Any, selector: str) -> str:
    """The visible text, all on one line; empty while the element is not there."""
    found = page.execute_script(
        "const e = document.querySelector(arguments[0]); return e ? e.innerText : ''", selector
    )
    return " ".join(str(found).split())


def send(server: InboxServer, html: str = "", *, subject: str = "Hello", text: str = "Good day") -> None:
    from mailbridge import Mailer, Message, SMTPConfig

    message = Message(subject, "Shop <shop@example.com>", ["maja@example.org"], text=text, html=html or None)
    message.attach(PDF, filename="Rechnung größe.pdf")
    with Mailer(SMTPConfig(host=server.host, port=server.port, security="none")) as mailer:
        mailer.send(message)


def open_first(page: Any) -> None:
    until(lambda: page.find_elements("css selector", "#list a"))
    page.execute_script("document.querySelector('#list a').click()")
    until(lambda: text_of(page, "#subject"))


def test_a_mail_of_the_django_site_appears_by_itself(page: Any, server: InboxServer) -> None:
    assert "No mail yet" in text_of(page, "#empty")
    page.execute_script("window.wasHereBefore = true")
    environment = {
        **os.environ,
        "MAILBRIDGE_URL": f"smtp://{server.host}:{server.port}/?security=none",
        "DJANGO_SETTINGS_MODULE": "testproject.website.settings",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    subprocess.run([sys.executable, "-c", VISIT], env=environment, cwd=ROOT, check=True, timeout=40)

    until(lambda: "Open on Sunday?" in text_of(page, "#list"))
    assert page.execute_script("return window.wasHereBefore") is True
    assert text_of(page, "#count") == "1"
    open_first(page)
    assert text_of(page, "#subject") == "[Contact] Open on Sunday?"
    assert "Are you?" in text_of(page, "#view pre")


# What mails bring, {0} for the other site, and what it does where nothing stops it.
ACTS = {
    "scripts": ("<script>fetch('{0}/script'); new Image().src='{0}/late'</script>", {"/script", "/late"}),
    "handlers": (
        "<img src=x:y onerror=\"fetch('{0}/onerror')\"><body onload=\"fetch('{0}/onload')\">",
        {"/onerror", "/onload"},
    ),
    "images": (
        "<img src='{0}/image'><svg><image href='{0}/svg'/></svg><p style='background: url({0}/style)'>x",
        {"/image", "/svg", "/style"},
    ),
    "styles": (
        "<link rel=stylesheet href='{0}/sheet'><style>@import url({0}/import);</style>",
        {"/sheet", "/import"},
    ),
    "frames": ("<iframe src='{0}/frame'></iframe><object data='{0}/object'></object>", {"/frame", "/object"}),
    "media": ("<video src='{0}/video' autoplay></video>", {"/video"}),
    "hints": ("<link rel=preload as=image href='{0}/preload'>", {"/preload"}),
    "refresh": ("<meta http-equiv=refresh content='0;url={0}/refresh'>", {"/refresh"}),
    "forms": ("<form action='{0}/form'></form><script>document.forms[0].submit()</script>", {"/form?"}),
}


@pytest.mark.parametrize("act", ACTS)
def test_html_runs_no_script_and_loads_nothing(
    page: Any, server: InboxServer, other_site: OtherSite, act: str
) -> None:
    html = f"<h1>Order</h1>{ACTS[act][0].format(other_site.url)}<p id=end>End</p>"
    send(server, html)
    open_first(page)
    page.switch_to.frame(page.find_element("css selector", "#view iframe"))
    until(lambda: page.find_elements("css selector", "#end"))
    page.switch_to.default_content()
    # Time for what would come late: requests of the page itself go out and come back behind all that.
    for _ in range(3):
        page.execute_async_script("fetch('/api/messages').then(arguments[0])")
    assert other_site.visits == []
    assert page.title == "(1) Inbox"
    # The same html, without the walls, does act.
    other_site.page = html
    page.get(f"{other_site.url}/page")
    until(lambda: ACTS[act][1] <= set(other_site.visits))


def test_no_link_in_a_mail_leads_the_page_away(page: Any, server: InboxServer, other_site: OtherSite) -> None:
    send(server, f"<a href='{other_site.url}/link' target=_top>Look</a>")
    open_first(page)
    page.switch_to.frame(page.find_element("css selector", "#view iframe"))
    until(lambda: page.find_elements("css selector", "a"))
    page.find_element("css selector", "a").click()
    page.switch_to.default_content()
    assert page.title == "(1) Inbox"
    for handle in page.window_handles[1:]:
        page.switch_to.window(handle)
        page.close()
    page.switch_to.window(page.window_handles[0])


def test_remote_images_are_loaded_when_asked_for_and_scripts_never(
    page: Any, server: InboxServer, other_site: OtherSite
) -> None:
    address = other_site.url
    send(server, f"<p>Order</p><img src='{address}/image.gif'><script src='{address}/script.js'></script>")
    open_first(page)
    until(lambda: page.find_element("css selector", "#load").is_displayed())
    assert other_site.visits == []
    page.find_element("css selector", "#load").click()
    until(lambda: "/image.gif" in other_site.visits)
    assert other_site.visits == ["/image.gif"]


def test_an_attachment_downloads_intact(page: Any, server: InboxServer, browser: Chromium) -> None:
    send(server)
    open_first(page)
    assert "Rechnung größe.pdf" in text_of(page, "#files")
    page.find_element("css selector", "#files a").click()
    until(lambda: [file for file in browser.downloads.iterdir() if file.suffix == ".pdf"])
    (file,) = [file for file in browser.downloads.iterdir() if file.suffix == ".pdf"]
    assert file.name == "Rechnung größe.pdf"
    assert file.read_bytes() == PDF


def test_markup_in_subject_and_names_is_text(page: Any, server: InboxServer) -> None:
    send(server, subject="<img src=x onerror=alert(1)> & <b>bold</b>", text="<script>alert(1)</script>")
    open_first(page)
    assert text_of(page, "#subject") == "<img src=x onerror=alert(1)> & <b>bold</b>"
    assert text_of(page, "#view pre") == "<script>alert(1)</script>"
    assert page.find_elements("css selector", "#list img, #subject img, #view script") == []


def test_every_view_shows_the_mail(page: Any, server: InboxServer) -> None:
    send(server, "<p>Good <b>day</b></p>", text="Look: https://shop.example/o?x=1.")
    open_first(page)
    page.find_element("css selector", "[data-view=text]").click()
    link = page.find_element("css selector", "#view a")
    assert link.get_attribute("href") == "https://shop.example/o?x=1"
    page.find_element("css selector", "[data-view=headers]").click()
    assert "Message-ID" in text_of(page, "#view table")
    page.find_element("css selector", "[data-view=source]").click()
    until(lambda: "Content-Type: multipart/mixed" in text_of(page, "#view pre"))


def test_a_text_of_very_many_links_is_shown(page: Any, server: InboxServer, browser: Chromium) -> None:
    send(server, text="https://x.example/a\n" * 200_000)
    open_first(page)
    length = "return document.querySelector('#view pre')?.textContent.length ?? 0"
    until(lambda: page.execute_script(length) > 1_000_000)
    assert page.find_elements("css selector", "#view a") == []
    assert browser.complaints() == []


def test_what_is_left_out_is_said(page: Any, server: InboxServer) -> None:
    head = b"Subject: deep\r\n"
    layers = (b"Content-Type: multipart/x; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(100))
    server.inbox.add(head + b"".join(layers), sender="", recipients=["maja@example.org"])
    open_first(page)
    until(lambda: "nested more than 20 deep" in text_of(page, "#left-out"))
    send(server)
    until(lambda: text_of(page, "#list li:first-child .subject") == "Hello")
    open_first(page)
    until(lambda: text_of(page, "#subject") == "Hello")
    assert text_of(page, "#left-out") == ""


def test_search_and_delete(page: Any, server: InboxServer) -> None:
    send(server, subject="Order 2041")
    send(server, subject="Newsletter")
    until(lambda: text_of(page, "#count") == "2")
    page.find_element("css selector", "#search").send_keys("2041")
    until(lambda: text_of(page, "#count") == "1 of 2")
    assert "Newsletter" not in text_of(page, "#list")
    open_first(page)
    page.find_element("css selector", "#delete").click()
    until(lambda: len(server.inbox) == 1)
    page.find_element("css selector", "#search").clear()
    page.execute_script("document.querySelector('#search').dispatchEvent(new Event('input'))")
    until(lambda: "Newsletter" in text_of(page, "#list"))


def test_a_narrow_window_shows_one_thing_at_a_time(page: Any, server: InboxServer) -> None:
    from tests.servers.chromium import NARROW

    page.set_window_size(*NARROW)
    send(server, "<p>Good day</p>", subject="A subject that is so long that it takes more than one line " * 2)
    until(lambda: page.find_elements("css selector", "#list a"))
    assert not page.find_element("css selector", "#mail").is_displayed()
    open_first(page)
    assert not page.find_element("css selector", "#list").is_displayed()
    overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.execute_script(overflow) <= 0
    page.find_element("css selector", "#back").click()
    until(lambda: page.find_element("css selector", "#list").is_displayed())


def test_the_page_itself_complains_of_nothing(page: Any, server: InboxServer, browser: Chromium) -> None:
    send(server, "<p>Good day</p>")
    open_first(page)
    assert browser.complaints() == []
