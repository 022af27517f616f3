"""Sockets, TLS, DNS and real clocks: the only room that has them."""
