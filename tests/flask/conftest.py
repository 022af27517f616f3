"""Fixtures for the Flask tests: a healthy server, an application that sends to it, and its `Mail`."""

from collections.abc import Iterator

import pytest
from flask import Flask

import mailbridge
from mailbridge.testing import ScriptedServer
from mailbridge_flask import Mail
from tests.flask.apps import app_for


@pytest.fixture(autouse=True)
def close_pools() -> Iterator[None]:
    yield
    mailbridge.close_all()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A healthy server; at the end it complains of whatever the client did that it must not do."""
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def app(server: ScriptedServer) -> Flask:
    return app_for(server)


@pytest.fixture
def mail(app: Flask) -> Mail:
    return Mail(app)


@pytest.fixture
def context(app: Flask, mail: Mail) -> Iterator[None]:
    """The context of `app`, with mail."""
    with app.app_context():
        yield
