"""The errors that only the Flask extension has; all others are mailbridge's own (`mailbridge.errors`)."""

from mailbridge import InvalidMessage

__all__ = ["BadHeaderError", "IncompleteMessage"]


class BadHeaderError(InvalidMessage):
    """A line break where it would begin another header field. Nothing was sent."""


class IncompleteMessage(InvalidMessage, AssertionError):
    """A message without recipients or without a sender. Flask-Mail asserts both."""
