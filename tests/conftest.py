"""Fixtures for all tests: real servers and certificates. They cost nothing until a test asks for one."""

import gc
import os
from importlib.util import find_spec

import pytest
from hypothesis import settings

pytest_plugins = ("tests.servers.fixtures", "mailbridge.testing.plugin")

# On a busy machine a single example may take any time; nothing here is a measure of speed.
settings.register_profile("mailbridge", deadline=None)
settings.register_profile("brief", deadline=None, max_examples=20)
settings.load_profile(os.environ.get("MAILBRIDGE_HYPOTHESIS", "mailbridge"))


def pytest_collection_finish() -> None:
    """What collecting has made stays to the end: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.needs("idna")`: left out in the environment of the core alone, which has no extras."""
    for mark in item.iter_markers("needs"):
        for module in mark.args:
            if find_spec(module) is None:
                pytest.skip(f"the core alone has no {module}")
