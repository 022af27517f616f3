"""TLS: contexts, handshakes, resumed sessions, and what went wrong in them. Knows no SMTP."""
