"""The way to a server through HTTP and SOCKS proxies."""
