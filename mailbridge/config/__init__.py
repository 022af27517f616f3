"""From options (keywords, a mapping, a URL) to one frozen `SMTPConfig`. Nothing here connects or resolves."""
