"""What becomes of a message: which server, how often, and what speaks against trying again."""
