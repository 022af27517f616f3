"""stunnel in front of another server: bad certificates, old TLS, a port that wants a client certificate."""

from __future__ import annotations

from pathlib import Path

from tests.servers.certificates import Certificates
from tests.servers.process import Endpoint, Program, find_program, free_ports, tail

SERVICES = (
    *("good", "expired", "wrong_host", "self_signed"),
    *("old_tls", "client_certificate", "starttls_expired"),
)
SERVICE = """\
[{name}]
accept = {endpoint}
connect = {target}
cert = {identity.cert_file}
key = {identity.key_file}
{options}
"""


class Stunnel:
    """A running stunnel. TLS from the first byte, except for starttls_expired."""

    name = "stunnel"
    good: Endpoint
    expired: Endpoint
    wrong_host: Endpoint
    self_signed: Endpoint
    old_tls: Endpoint  # TLS 1.0 and 1.1 only
    client_certificate: Endpoint  # wants one that is signed by the CA
    starttls_expired: Endpoint

    def __init__(self, folder: Path, certificates: Certificates, target: Endpoint) -> None:
        program = find_program(self.name, "stunnel4", "stunnel", package="stunnel4")
        endpoints = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
        for service, endpoint in endpoints.items():
            setattr(self, service, endpoint)
        identities = {
            "expired": certificates.expired,
            "starttls_expired": certificates.expired,
            "wrong_host": certificates.wrong_host,
            "self_signed": certificates.self_signed,
        }
        options = {
            # OpenSSL 3 counts TLS 1.1 among what is only allowed at security level 0.
            "old_tls": "sslVersionMin = TLSv1\nsslVersionMax = TLSv1.1\nciphers = ALL:@SECLEVEL=0",
            "client_certificate": f"verifyChain = yes\nCAfile = {certificates.ca_file}",
            "starttls_expired": "protocol = smtp",
        }
        services = [
            SERVICE.format(
                name=name,
                endpoint=endpoint,
                target=target,
                identity=identities.get(name, certificates.good),
                options=options.get(name, ""),
            )
            for name, endpoint in endpoints.items()
        ]
        self._log_file = folder / "log"
        configuration = folder / "stunnel.conf"
        head = f"foreground = yes\npid =\noutput = {self._log_file}\ndebug = notice\n"
        configuration.write_text(head + "".join(services))
        self._program = Program([program, configuration], output=folder / "output")
        self._program.wait_until_listening(list(endpoints.values()), self._log_file)

    def log(self) -> str:
        return tail(self._log_file)

    def stop(self) -> None:
        self._program.stop()
