"""Options that can't work: no frame of ours and no message has a secret, whatever the shape and the door."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from mailbridge import ConfigurationError, SMTPConfig, close_all
from mailbridge_django import EmailBackend
from mailbridge_flask import Mail
from tests.acceptance.content_sentinels import leaks
from tests.acceptance.settings_shapes import MARK, options, plain, shapes, urls
from tests.django.conftest import BACKEND, overridden

pytestmark = pytest.mark.matrix


def in_flask(given: dict[str, Any], url: str) -> None:
    app = Flask("testapp")
    app.config.from_mapping({f"MAILBRIDGE_{name.upper()}": value for name, value in given.items()})
    Mail(app)


def in_django(given: dict[str, Any], url: str) -> None:
    with overridden(EMAIL_BACKEND=BACKEND):
        EmailBackend(**given)


def without_url(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "url"}


DOORS: dict[str, Callable[[dict[str, Any], str], object]] = {
    "keywords": lambda given, url: SMTPConfig(**given),
    "mapping": lambda given, url: SMTPConfig.from_mapping(given),
    "url": lambda given, url: SMTPConfig.from_url(url + ("&" if "?" in url else "?") + "nonsense=1"),
    "url and options": lambda given, url: SMTPConfig.from_url(url, **without_url(given)),
    "untrusted url": lambda given, url: SMTPConfig.from_untrusted(url),
    "untrusted mapping": lambda given, url: SMTPConfig.from_untrusted(given),
    "Django": in_django,
    "Flask": in_flask,
}


def refusal(door: str, number: int, given: Any) -> ConfigurationError | None:
    try:
        DOORS[door](plain(dict(given)), urls(random.Random(number)))
    except ConfigurationError as error:
        return error
    finally:
        close_all()
    return None


@pytest.mark.filterwarnings("ignore")  # about options that Django's backend ignores
@pytest.mark.parametrize("door", DOORS)
def test_options_that_can_not_work(door: str) -> None:
    refusals = [refusal(door, number, given) for number, given in enumerate(shapes(options))]
    found = [leaks(error, MARK) for error in refusals if error is not None]
    assert len(found) > 100
    assert [each for each in found if each] == []
