"""A small shop's website: a contact form, and accounts with a password reset."""
