"""Mail with tokens that are none of this project: a mock server gives them and knows whose they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mailbridge.oauth2.shared import forget_sources
from tests.integration.conftest import StartMailer
from tests.integration.mails import new_mail
from tests.servers.dovecot import Dovecot
from tests.servers.oauth2_mock import OAuth2Mock

CLIENT = {"client_id": "the-client"}
GRANTS = ["refresh_token", "client_secret", "private_key", "service_account", "signing client"]


@pytest.fixture(autouse=True)
def no_tokens_of_others() -> Iterator[None]:
    forget_sources()
    yield
    forget_sources()


def oauth2_for(grant: str, server: OAuth2Mock) -> dict[str, Any]:
    account = {"client_email": "robot@project.test", "private_key": server.client_key}
    own: dict[str, dict[str, Any]] = {
        "refresh_token": CLIENT | {"client_secret": "s", "refresh_token": "r"},
        "client_secret": CLIENT | {"client_secret": "s"},
        "private_key": CLIENT | {"private_key": server.client_key},
        "service_account": {"service_account": account},
        "signing client": CLIENT | {"grant": "jwt_bearer", "private_key": server.client_key},
    }
    return {"token_url": server.token_url, "scope": "mail", **own[grant]}


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("grant", GRANTS)
def test_every_grant_logs_in(
    oauth2_mock: OAuth2Mock, dovecot_of_mock: Dovecot, mailer: StartMailer, grant: str, mechanism: str
) -> None:
    before = len(oauth2_mock.grants())
    client = mailer(
        dovecot_of_mock.submission,
        security="starttls",
        auth=mechanism,
        username=oauth2_mock.username,
        oauth2=oauth2_for(grant, oauth2_mock),
    )
    report, mail = client.verify(), new_mail()
    assert report.ok, str(report)
    assert report["auth"].detail.startswith(f"{mechanism} accepted")
    assert mail.send(client).accepted
    assert mail.content in [message.content for message in dovecot_of_mock.messages()]
    assert len(oauth2_mock.grants()) == before + 1  # verify() and the mail share the token
    assert dovecot_of_mock.introspection.asked == []  # nobody but the mock server was asked
