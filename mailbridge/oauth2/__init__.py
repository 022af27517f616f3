"""OAuth2 access tokens: asking for them, keeping them, and sharing them among threads and processes.

What a token is used for is not known here; the SASL mechanisms are `protocol.sasl`'s.
"""
