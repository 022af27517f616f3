"""oauth2-mock-server, from the npm registry: an OAuth2 server that is nobody's of this project.

It has to be installed in the folder that the environment variable MAILBRIDGE_NPM names:

    npm install --prefix "$MAILBRIDGE_NPM" oauth2-mock-server@7.2.1
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.servers.certificates import Certificates
from tests.servers.process import Endpoint, MissingServerError, Program, find_program, free_ports, tail

VARIABLE = "MAILBRIDGE_NPM"
PACKAGE = "oauth2-mock-server"
USERNAME = "user@example.com"


class OAuth2Mock:
    """`token_url` and `introspection_url` are https, with the good certificate.

    `username`: whose all its tokens are. `client_key`: PEM of the RSA key that clients have to sign with.
    """

    name = PACKAGE
    username = USERNAME

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        node = find_program(PACKAGE, "node", package="nodejs")
        modules = os.environ.get(VARIABLE, "")
        if not modules or not (Path(modules) / "node_modules" / PACKAGE).is_dir():
            raise MissingServerError(
                PACKAGE, f"it needs {VARIABLE}, a folder into which npm has installed it"
            )
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.client_key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        public = folder / "clients.pem"
        public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        front, mock = free_ports(2)
        self.endpoint: Endpoint = front
        self._output = folder / "output"
        good, script = certificates.good, Path(__file__).with_suffix(".mjs")
        ports = [str(front.port), str(mock.port)]
        files = [good.cert_file, good.key_file, public]
        command: list[str | Path] = [node, script, Path(modules).resolve(), *ports, *files, USERNAME]
        self._program = Program(command, output=self._output)
        self._program.wait_until_listening([mock, front], self._output)
        self.base_url = f"https://localhost:{front.port}"
        self.token_url = f"{self.base_url}/token"
        self.introspection_url = f"{self.base_url}/introspect"

    def grants(self) -> list[str]:
        """The grant of each token it gave, as it came to the mock server; with the refresh token if any."""
        lines = self._output.read_text(errors="replace").splitlines()
        return [line.removeprefix("token for ").strip() for line in lines if line.startswith("token for ")]

    def log(self) -> str:
        return tail(self._output)

    def stop(self) -> None:
        self._program.stop()
