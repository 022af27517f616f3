"""The command line `mailbridge`; `main` runs it."""

from mailbridge.cli.main import main

__all__ = ["main"]
