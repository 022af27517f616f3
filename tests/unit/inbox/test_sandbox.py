"""mailbridge.inbox.sandbox: the html of a mail, between walls."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailbridge.inbox import sandbox
from mailbridge.inbox.mail import Part, Reading, read


def reading_of(html: str, *parts: Part) -> Reading:
    return replace(read(b""), html=html, parts=parts)


IMAGE = Part(filename="logo.png", content_type="image/png", content=b"\x89PNG", content_id="Logo@shop")


def test_images_that_the_mail_brings_along_stand_in_their_places() -> None:
    document = sandbox.document(reading_of('<img src="cid:logo@shop">', IMAGE))
    assert '<img src="data:image/png;base64,iVBORw==">' in document


def test_what_is_no_image_is_left_out() -> None:
    odd = Part(filename="x", content_type='image/"><script>', content=b"x", content_id="odd")
    page = Part(filename="x", content_type="text/html", content=b"x", content_id="page")
    document = sandbox.document(reading_of('<img src="cid:odd"><img src="cid:page">', odd, page))
    assert document.endswith('<img src="cid:odd"><img src="cid:page">')


class TestLimit:
    """An image stands in the document as often as it is named: what counts is each use."""

    def test_an_image_that_is_named_many_times(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sandbox, "MOST_IMAGE_CHARACTERS", 10_000)
        document = sandbox.document(reading_of("<img src=cid:Logo@shop >" * 1000, IMAGE))
        shown = document.count("data:image/png;base64,iVBORw==")
        assert 0 < shown == 1000 - document.count("cid:Logo@shop")
        assert shown * len("data:image/png;base64,iVBORw==") <= 10_000
        assert f"({1000 - shown} left out)" in document

    def test_what_fits_behind_one_that_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sandbox, "MOST_IMAGE_CHARACTERS", 100)
        large = replace(IMAGE, content=b"x" * 100, content_id="large")
        document = sandbox.document(reading_of("<img src=cid:large ><img src=cid:logo@shop >", large, IMAGE))
        assert "cid:large" in document
        assert "base64,iVBORw==" in document

    def test_nothing_is_said_where_nothing_is_left_out(self) -> None:
        assert "left out" not in sandbox.document(reading_of("<img src=cid:logo@shop >", IMAGE))


def test_links_open_beside_the_frame() -> None:
    assert '<base target="_blank">' in sandbox.document(reading_of("<a href='https://x.example'>x</a>"))


class TestPolicy:
    def test_nothing_is_loaded(self) -> None:
        policy = sandbox.policy(remote=False)
        assert policy.startswith("default-src 'none'; img-src data:;")
        assert "http" not in policy

    def test_unless_it_was_asked_for(self) -> None:
        assert "img-src data: http: https:" in sandbox.policy(remote=True)

    @pytest.mark.parametrize("remote", [True, False])
    def test_scripts_never_run(self, remote: bool) -> None:
        policy = sandbox.policy(remote=remote)
        assert "script-src" not in policy  # so that default-src 'none' holds for it
        assert "allow-scripts" not in policy
        assert "allow-same-origin" not in policy
        assert "sandbox" in policy
        assert "form-action 'none'" in policy


@pytest.mark.parametrize(
    ("html", "is_remote"),
    [
        ('<img src="https://t.example/x.gif">', True),
        ("<img src='//t.example/x.gif'>", True),
        ("<td background=http://t.example/x>", True),
        ("<div style='background:url(https://t.example/x)'>", True),
        ("<link rel=stylesheet href=x>", True),
        ('<a href="https://shop.example">', False),
        ('<img src="cid:logo">', False),
        ("<p>https://shop.example</p>", False),
    ],
)
def test_remote_content_is_noticed(html: str, is_remote: bool) -> None:
    assert sandbox.has_remote_content(html) is is_remote
