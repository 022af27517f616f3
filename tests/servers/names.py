"""A host name that only a proxy knows: who can send there has let the proxy resolve it."""

from __future__ import annotations

from pathlib import Path

from tests.servers.process import can_have_own_mounts

NAME = "mail.lab.test"  # also in the good certificate; nothing outside resolves below .test (RFC 6761)


def own_hosts(folder: Path) -> Path | None:
    """A hosts file with NAME for a program that reads /etc/hosts; None where it cannot be shown to it."""
    return write_hosts(folder) if can_have_own_mounts() else None


def write_hosts(folder: Path) -> Path:
    path = folder / "hosts"
    path.write_text(f"127.0.0.1 localhost {NAME}\n")
    path.chmod(0o644)
    return path
