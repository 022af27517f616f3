"""The PROXY header, versions 1 and 2, for client and server. No I/O."""
