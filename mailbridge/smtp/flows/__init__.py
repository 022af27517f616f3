"""Flows: what is said to a server, in which order, and what follows. A driver performs their steps."""
