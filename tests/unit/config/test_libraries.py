"""What a configuration loads ahead: all that its first send needs, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest

from mailbridge import SMTPConfig
from mailbridge.config import libraries


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., set[str]]:
    def build(**options: Any) -> set[str]:
        names: set[str] = set()
        monkeypatch.setattr(libraries, "_load", names.add)
        SMTPConfig.from_mapping(options)
        return names - {"encodings.idna"}

    return build


def test_nothing_without_a_need(loaded: Callable[..., set[str]]) -> None:
    assert loaded() == set()
    assert loaded(username="u", password="p", auth="PLAIN") == set()
    assert loaded(proxy="http://proxy.example") == set()


def test_scram_for_passwords(loaded: Callable[..., set[str]]) -> None:
    assert "scramp" in loaded(username="u", password="p")


@pytest.mark.needs("socks")
def test_socks_for_its_proxies(loaded: Callable[..., set[str]]) -> None:
    assert loaded(proxy="socks5://proxy.example") == {"socks", "mailbridge.net.proxy.socks"}


@pytest.mark.needs("oauthlib")
def test_oauthlib_for_grants(loaded: Callable[..., set[str]]) -> None:
    grant = {
        "token_url": "https://x.example/token",
        "client_id": "c",
        "client_secret": "s",
        "refresh_token": "r",
    }
    assert loaded(username="u", oauth2=grant) == {"oauthlib.oauth2", "jwt"}
    assert loaded(username="u", oauth2={"access_token": "t"}) == set()


@pytest.mark.needs("idna")
def test_idna_for_names_that_need_it(loaded: Callable[..., set[str]]) -> None:
    assert loaded(host="bücher.example") == {"idna"}


def test_a_library_that_is_not_there_is_left_out() -> None:
    libraries._load("no_such_library.of_ours")
