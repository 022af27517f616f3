"""What a program says: addresses, envelopes, messages. Knows nothing of servers."""
