"""Which mechanisms a session may use: what is configured, what is offered, what TLS gives to bind to."""

from base64 import b64decode
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mailbridge import AuthenticationFailed, SMTPConfig, SMTPConnection
from mailbridge.testing import ScriptedServer
from tests.servers.certificates import Certificates, make_certificates

LOGIN: dict[str, Any] = {"username": "user", "password": "pencil"}
with_scram = pytest.mark.skipif(find_spec("scramp") is None, reason="the extra scram is not installed")


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(Path(tmp_path_factory.mktemp("credentials")) / "certificates")


@with_scram
class TestSession:
    """Whole logins. The first letter of SCRAM's first message tells what the client could bind to."""

    def log_in(self, server: ScriptedServer, **options: Any) -> str | None:
        settings = {"host": "localhost", "port": server.port, "timeout": 5, "family": "ipv4"} | LOGIN
        connection = SMTPConnection(SMTPConfig.from_mapping(settings | options))
        connection.connect()
        try:
            connection.login()
            return connection.mechanism
        finally:
            connection.close()

    @pytest.mark.parametrize("name", ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"])
    def test_in_the_clear_there_is_nothing_to_bind_to(self, name: str) -> None:
        with ScriptedServer(users={"user": "pencil"}, auth=["PLAIN", name]) as server:
            assert self.log_in(server, security="none") == name
        assert self.first_message(server).startswith(b"n,,n=user,r=")

    @pytest.mark.parametrize("tls", ["starttls", "implicit"])
    def test_under_tls_the_client_says_that_it_could_have_bound(
        self, identities: Certificates, tls: Any
    ) -> None:
        good = identities.good
        files = {"certfile": good.cert_file, "keyfile": good.key_file}
        with ScriptedServer(users={"user": "pencil"}, auth=["SCRAM-SHA-256"], tls=tls, **files) as server:
            security = {"starttls": "starttls", "implicit": "tls"}[tls]
            options = {"security": security, "tls": {"ca_file": str(identities.ca_file)}}
            assert self.log_in(server, **options) == "SCRAM-SHA-256"
        assert self.first_message(server).startswith(b"y,,n=user,r=")

    def test_a_wrong_password(self) -> None:
        auth = ["SCRAM-SHA-256", "PLAIN"]
        with ScriptedServer(users={"user": "other"}, auth=auth) as server:
            with pytest.raises(AuthenticationFailed) as caught:
                self.log_in(server, security="none")
            assert caught.value.smtp_code == 535
        assert [line[:10] for line in server.connections[0].commands].count(b"AUTH PLAIN") == 0

    def first_message(self, server: ScriptedServer) -> bytes:
        (line,) = [line for line in server.connections[0].commands if line.startswith(b"AUTH ")]
        return b64decode(line.split(b" ")[2])
