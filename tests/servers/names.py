"""What a server shall know of names: one host name that only a proxy knows, and nothing by DNS.

Who can send to that name through a proxy has let the proxy resolve it.
"""

from __future__ import annotations

from pathlib import Path

from tests.servers.process import can_have_own_mounts

NAME = "mail.lab.test"  # also in the good certificate; nothing outside resolves below .test (RFC 6761)
HOSTS = Path("/etc/hosts")
RESOLVER = Path("/etc/resolv.conf")


def own_hosts(folder: Path) -> dict[Path, Path]:
    """For Program's `shown`: /etc/hosts with NAME; empty where a program cannot have its own."""
    return {HOSTS: write_hosts(folder)} if can_have_own_mounts() else {}


def no_dns(folder: Path) -> dict[Path, Path]:
    """For Program's `shown`: every question to DNS fails at once, as nobody answers on loopback."""
    if not RESOLVER.exists():
        return {}
    path = folder / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    path.chmod(0o644)
    return {RESOLVER: path}


def write_hosts(folder: Path) -> Path:
    path = folder / "hosts"
    path.write_text(f"127.0.0.1 localhost {NAME}\n")
    path.chmod(0o644)
    return path
