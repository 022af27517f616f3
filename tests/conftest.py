"""Fixtures for all tests: real servers and certificates. They cost nothing until a test asks for one."""

from hypothesis import settings

pytest_plugins = ("tests.servers.fixtures",)

# On a busy machine a single example may take any time; nothing here is a measure of speed.
settings.register_profile("mailbridge", deadline=None)
settings.load_profile("mailbridge")
