"""HAProxy in front of mail servers: PROXY headers of all kinds, idle connections ended, servers in turn."""

from __future__ import annotations

from pathlib import Path

from tests.servers.certificates import Certificates
from tests.servers.exim import Exim
from tests.servers.opensmtpd import OpenSmtpd
from tests.servers.postfix import Postfix
from tests.servers.process import (
    UNPRIVILEGED,
    Endpoint,
    Program,
    find_program,
    free_ports,
    make_folder,
    tail,
)

IDLE_SECONDS = 2
DEFAULTS = """\
global
  log stdout format raw local0
defaults
  mode tcp
  log global
  option tcplog
  timeout connect 5s
  timeout client 60s
  timeout server 60s
"""
IDLE = f"  timeout client {IDLE_SECONDS}s\n  timeout server {IDLE_SECONDS}s\n"


class HAProxy:
    """A running HAProxy. Where it sends a PROXY header, that names its own client."""

    name = "haproxy"
    v1: Endpoint  # to Postfix, with a header of version 1
    v2: Endpoint
    v2_tls: Endpoint  # TLS from the first byte up to here; the header tells of it (type-length-values)
    v1_smtps: Endpoint  # TLS is spoken with Postfix, behind the header
    v2_smtps: Endpoint
    exim_v1: Endpoint
    exim_v2: Endpoint
    exim_v2_tls: Endpoint
    opensmtpd_v2: Endpoint
    opensmtpd_v2_tls: Endpoint
    idle: Endpoint  # to Postfix, no header; ended without a word after IDLE_SECONDS of silence
    round_robin: Endpoint  # no header; in turn to Postfix with all extensions and to a poor one

    def __init__(
        self, folder: Path, certificates: Certificates, postfix: Postfix, exim: Exim, opensmtpd: OpenSmtpd
    ) -> None:
        program = find_program(self.name, "haproxy", package="haproxy")
        make_folder(folder, owner=UNPRIVILEGED)
        tls = f" ssl crt {certificates.good.combined}"
        v1, v2, v2_tls = " send-proxy", " send-proxy-v2", " send-proxy-v2-ssl-cn"
        listeners = {  # how it listens, and the servers behind
            "v1": ("", f"{postfix.behind_proxy}{v1}"),
            "v2": ("", f"{postfix.behind_proxy}{v2}"),
            "v2_tls": (tls, f"{postfix.behind_proxy}{v2_tls}"),
            "v1_smtps": ("", f"{postfix.behind_proxy_smtps}{v1}"),
            "v2_smtps": ("", f"{postfix.behind_proxy_smtps}{v2}"),
            "exim_v1": ("", f"{exim.behind_proxy}{v1}"),
            "exim_v2": ("", f"{exim.behind_proxy}{v2}"),
            "exim_v2_tls": (tls, f"{exim.behind_proxy}{v2_tls}"),
            "opensmtpd_v2": ("", f"{opensmtpd.behind_proxy}{v2}"),
            "opensmtpd_v2_tls": (tls, f"{opensmtpd.behind_proxy}{v2_tls}"),
            "idle": ("", f"{postfix.plain}"),
            "round_robin": ("", f"{postfix.plain}", f"{postfix.minimal}"),
        }
        endpoints = free_ports(len(listeners))
        text = DEFAULTS
        for endpoint, (name, (how, *servers)) in zip(endpoints, listeners.items(), strict=True):
            setattr(self, name, endpoint)
            text += f"listen {name}\n  bind {endpoint}{how}\n{IDLE if name == 'idle' else ''}"
            text += "".join(f"  server s{number} {server}\n" for number, server in enumerate(servers))
        configuration = folder / "haproxy.cfg"
        configuration.write_text(text)
        self._output = folder / "output"
        command: list[str | Path] = [program, "-db", "-f", configuration]
        self._program = Program(command, output=self._output, user=UNPRIVILEGED)
        self._program.wait_until_listening(endpoints, self._output)

    def log(self) -> str:
        return tail(self._output)

    def stop(self) -> None:
        self._program.stop()
