"""One SMTP connection: open it, log in, send, and tell whether it may be used again."""
