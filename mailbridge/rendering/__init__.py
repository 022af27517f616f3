"""From a message to canonical bytes, signed with DKIM where that is configured."""
