"""nginx as a stream proxy in front of mail servers: PROXY headers of version 1, TLS before clear text."""

from __future__ import annotations

from pathlib import Path

from tests.servers.certificates import Certificates
from tests.servers.exim import Exim
from tests.servers.postfix import Postfix
from tests.servers.process import (
    UNPRIVILEGED,
    Endpoint,
    MissingServerError,
    Program,
    find_program,
    free_ports,
    make_folder,
    tail,
)

MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
CONFIGURATION = """\
load_module {module};
daemon off;
# One process, which ends with the tests.
master_process off;
pid {folder}/pid;
error_log {folder}/log info;
events {{ worker_connections 256; }}
stream {{
  server {{ listen {v1}; proxy_protocol on; proxy_pass {postfix.behind_proxy}; }}
  server {{ listen {v1_smtps}; proxy_protocol on; proxy_pass {postfix.behind_proxy_smtps}; }}
  server {{ listen {exim_v1}; proxy_protocol on; proxy_pass {exim.behind_proxy}; }}
  server {{
    listen {tls} ssl;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    proxy_pass {postfix.plain};
  }}
}}
"""
SERVICES = ("v1", "v1_smtps", "exim_v1", "tls")


class Nginx:
    """A running nginx. Its PROXY headers name its own client."""

    name = "nginx"
    v1: Endpoint  # to Postfix, with a header
    v1_smtps: Endpoint  # TLS is spoken with Postfix, behind the header
    exim_v1: Endpoint
    tls: Endpoint  # TLS from the first byte up to here; no header

    def __init__(self, folder: Path, certificates: Certificates, postfix: Postfix, exim: Exim) -> None:
        program = find_program(self.name, "nginx", package="nginx-light")
        if not Path(MODULE).exists():
            raise MissingServerError(self.name, "it needs the Debian package libnginx-mod-stream")
        make_folder(folder, owner=UNPRIVILEGED)
        endpoints = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        for service, endpoint in endpoints.items():
            setattr(self, service, endpoint)
        self._log_file = folder / "log"
        configuration = folder / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                module=MODULE,
                folder=folder,
                cert=certificates.good.cert_file,
                key=certificates.good.key_file,
                postfix=postfix,
                exim=exim,
                **endpoints,
            )
        )
        # -e: the log until the configuration is read; the compiled-in one is root's.
        command: list[str | Path] = [program, "-e", self._log_file, "-c", configuration]
        self._program = Program(command, output=folder / "output", user=UNPRIVILEGED)
        self._program.wait_until_listening(list(endpoints.values()), self._log_file)

    def log(self) -> str:
        return tail(self._log_file)

    def stop(self) -> None:
        self._program.stop()
