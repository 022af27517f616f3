"""All servers of one test session: each is started when first asked for, and all are stopped together."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

from tests.servers.certificates import Certificates, make_certificates
from tests.servers.dante import Dante
from tests.servers.doveadm import Doveadm
from tests.servers.dovecot import Dovecot
from tests.servers.exim import Exim
from tests.servers.haproxy import HAProxy
from tests.servers.mailparser import Mailparser
from tests.servers.microsocks import Microsocks
from tests.servers.nginx import Nginx
from tests.servers.oauth2_mock import OAuth2Mock
from tests.servers.opensmtpd import OpenSmtpd
from tests.servers.postfix import Postfix
from tests.servers.process import MissingServerError, make_folder
from tests.servers.redis import Redis
from tests.servers.sink import SmtpSink
from tests.servers.squid import Squid
from tests.servers.ssh import SshTunnel
from tests.servers.stunnel import Stunnel
from tests.servers.tinyproxy import Tinyproxy


class Server(Protocol):
    def log(self) -> str: ...

    def stop(self) -> None: ...


S = TypeVar("S", bound=Server)


class Lab:
    """Also usable without pytest: `with contextlib.closing(Lab()) as lab: lab.postfix().plain.port`."""

    def __init__(self) -> None:
        self.missing: dict[str, MissingServerError] = {}
        self._running: dict[str, Server] = {}
        self._numbers = itertools.count(1)
        self._owner = os.getpid()

    @cached_property
    def folder(self) -> Path:
        """Not below pytest's own folder, which other users than the caller cannot enter."""
        return make_folder(Path(tempfile.mkdtemp(prefix="mailbridge-lab-")))

    @cached_property
    def certificates(self) -> Certificates:
        return make_certificates(self.folder / "tls")

    def postfix(self) -> Postfix:
        return self._get("postfix", lambda folder: Postfix(folder, self.certificates, self.dovecot().sasl))

    def dovecot(self) -> Dovecot:
        return self._get("dovecot", lambda folder: Dovecot(folder, self.certificates))

    def exim(self) -> Exim:
        return self._get("exim", lambda folder: Exim(folder, self.certificates))

    def opensmtpd(self) -> OpenSmtpd:
        return self._get("opensmtpd", OpenSmtpd)

    def stunnel(self) -> Stunnel:
        return self._get("stunnel", lambda folder: Stunnel(folder, self.certificates, self.postfix().plain))

    def squid(self) -> Squid:
        return self._get("squid", lambda folder: Squid(folder, self.certificates))

    def tinyproxy(self) -> Tinyproxy:
        return self._get("tinyproxy", Tinyproxy)

    def dante(self) -> Dante:
        return self._get("dante", Dante)

    def microsocks(self) -> Microsocks:
        return self._get("microsocks", Microsocks)

    def ssh_tunnel(self) -> SshTunnel:
        return self._get("ssh_tunnel", SshTunnel)

    def haproxy(self) -> HAProxy:
        def start(folder: Path) -> HAProxy:
            return HAProxy(folder, self.certificates, self.postfix(), self.exim(), self.opensmtpd())

        return self._get("haproxy", start)

    def nginx(self) -> Nginx:
        return self._get(
            "nginx", lambda folder: Nginx(folder, self.certificates, self.postfix(), self.exim())
        )

    def redis(self) -> Redis:
        return self._get("redis", Redis)

    def oauth2_mock(self) -> OAuth2Mock:
        return self._get("oauth2_mock", lambda folder: OAuth2Mock(folder, self.certificates))

    def dovecot_of_mock(self) -> Dovecot:
        """One that asks the mock server whose a token is."""
        url = self.oauth2_mock().introspection_url
        return self._get(
            "dovecot of mock", lambda folder: Dovecot(folder, self.certificates, introspection_url=url)
        )

    def mailparser(self) -> Mailparser:
        return self._get("mailparser", Mailparser)

    def doveadm(self) -> Doveadm:
        return self._get("doveadm", Doveadm)

    def smtp_sink(self, *options: str) -> SmtpSink:
        """A new one each time; end it with `stop_smtp_sinks`."""
        return self._get(f"smtp_sink {next(self._numbers)}", lambda folder: SmtpSink(folder, *options))

    def stop_smtp_sinks(self) -> None:
        for name in [name for name in self._running if name.startswith("smtp_sink")]:
            self._running.pop(name).stop()

    def logs(self, names: Iterable[str]) -> dict[str, str]:
        """The end of the log of each running server among these."""
        wanted = set(names)
        return {name: server.log() for name, server in self._running.items() if name.split()[0] in wanted}

    def close(self) -> None:
        """Stop all, latest first, since one may lean on another. Does nothing in a forked child."""
        if os.getpid() != self._owner:
            return
        while self._running:
            self._running.popitem()[1].stop()
        if "folder" in self.__dict__:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _get(self, name: str, start: Callable[[Path], S]) -> S:
        if name in self.missing:
            raise self.missing[name]
        if name not in self._running:
            try:
                self._running[name] = start(make_folder(self.folder / name.replace(" ", "-")))
            except MissingServerError as missing:
                self.missing[name.split()[0]] = missing
                raise
        return self._running[name]  # type: ignore[return-value]  # each name has one type
