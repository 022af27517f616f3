"""Fixtures for all tests: real servers and certificates. They cost nothing until a test asks for one."""

pytest_plugins = ("tests.servers.fixtures",)
