"""Conversations with a server: what is said, in which order. A driver performs their steps."""
