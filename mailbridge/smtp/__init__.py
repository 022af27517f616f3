"""Bytes to values and back: SMTP as RFC 5321 writes it. No socket, no clock, no thread."""
