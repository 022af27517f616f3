"""`mailbridge serve`: receive mail on this machine, to look at it. Arguments and printing."""

import argparse
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from mailbridge import ConfigurationError
from mailbridge.reply import printable

if TYPE_CHECKING:
    from mailbridge.inbox import Inbox

USERS_VARIABLE = "MAILBRIDGE_SERVE_AUTH"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def add_serve(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `mailbridge serve`."""
    command.set_defaults(run=_serve, config=lambda options: None, json=False)
    command.description = "Receives mail for development: nothing is ever passed on."
    command.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1")
    command.add_argument("--port", type=int, default=1025, help="default: 1025; 0: a free one")
    command.add_argument(
        "--http", type=int, metavar="PORT", help="show what arrives on a page on this port, on 127.0.0.1"
    )
    command.add_argument("--http-host", default="127.0.0.1", metavar="ADDRESS")
    command.add_argument("--maildir", type=Path, metavar="DIR", help="keep the mails there")
    command.add_argument(
        "--tls",
        action="store_true",
        help="offer STARTTLS; the certificate is made on the spot, unless --cert names one",
    )
    command.add_argument(
        "--implicit-tls", action="store_true", help="TLS from the first byte, as on port 465"
    )
    command.add_argument("--cert", type=Path, metavar="PATH", help="a certificate of your own, in PEM")
    command.add_argument("--key", type=Path, metavar="PATH", help="its key, if it is not in the same file")
    command.add_argument(
        "--auth",
        action="append",
        default=[],
        metavar="USER:PASSWORD",
        help=f"ask for a login; default: ${USERS_VARIABLE}, which keeps it out of the process list",
    )
    command.add_argument(
        "--use-proxy",
        action="extend",
        nargs="+",
        default=[],
        metavar="CIDR",
        help="believe the PROXY header of these addresses, or '*' of all",
    )
    command.add_argument("--debug", action="store_true", help="show log lines")


def _serve(_: None, options: argparse.Namespace) -> int:
    from mailbridge.inbox import Inbox
    from mailbridge.inbox.server import InboxServer

    with ExitStack() as stack:
        tls, ca_file = _tls(options, stack)
        server = InboxServer(
            Inbox(options.maildir),
            options.host,
            options.port,
            http_host=options.http_host,
            http_port=options.http,
            use_proxy=options.use_proxy or False,
            tls=tls,
            implicit_tls=options.implicit_tls,
            auth=_users(options.auth),
            allow_insecure_auth=options.host in _LOOPBACK,
        )
        stack.enter_context(server)
        for number in (signal.SIGINT, signal.SIGTERM):  # shells start jobs with SIGINT ignored
            signal.signal(number, _interrupt)
        try:
            _print_start(server.host, server.port, server.page_url, ca_file, options)
            _follow(server.inbox)
        except KeyboardInterrupt:
            print("\nStopped.")
    return 0


def _follow(inbox: "Inbox") -> None:
    """A line for each mail, until somebody ends it."""
    last = max((mail.number for mail in inbox.mails()), default=0)
    while True:
        mail = inbox.wait(after=last, timeout=3600)
        if mail is None:
            continue
        last = mail.number
        recipients = printable(", ".join(mail.recipients))
        print(f"{mail.received_at:%H:%M:%S}  {recipients}  {mail.reading.subject}", flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _tls(options: argparse.Namespace, stack: ExitStack) -> tuple[dict[str, str] | None, Path | None]:
    """The option `tls` of the server, and the file by which a client can trust it if it was made here."""
    if options.cert is not None:
        return {"cert_file": str(options.cert), "key_file": str(options.key or options.cert)}, None
    if not (options.tls or options.implicit_tls):
        return None, None
    try:
        from mailbridge.inbox.certificate import make_certificate
    except ImportError as error:
        raise ConfigurationError(
            "Making a certificate needs the library cryptography",
            stage="config",
            hint="Install the extra: pip install 'mailbridge-smtp[inbox]'; or name a certificate by --cert.",
        ) from error
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailbridge-serve-")))
    cert_file, key_file = make_certificate(folder, *([] if options.host in _LOOPBACK else [options.host]))
    return {"cert_file": str(cert_file), "key_file": str(key_file)}, cert_file


def _users(given: list[str]) -> dict[str, str] | None:
    pairs = given or os.environ.get(USERS_VARIABLE, "").split()
    users: dict[str, str] = {}
    for pair in pairs:
        user, colon, password = pair.partition(":")
        if not user or not colon:
            raise ConfigurationError("--auth takes USER:PASSWORD", stage="config")
        users[user] = password
    return users or None


def _print_start(
    host: str, port: int, page: str | None, ca_file: Path | None, options: argparse.Namespace
) -> None:
    shown = f"[{host}]" if ":" in host else host
    scheme = "smtps" if options.implicit_tls else "smtp"
    query = "" if options.cert is not None or ca_file is not None else "?security=none"
    login = "USER:PASSWORD@" if _users(options.auth) else ""
    print(f"Receiving mail on {shown}:{port}; nothing is passed on.")
    print(f"  configure   {scheme}://{login}{shown}:{port}/{query}")
    if ca_file is not None:
        print(f"  trust       tls.ca_file={ca_file}")
    if page:
        print(f"  look at it  {page}")
    if options.maildir:
        print(f"  kept in     {options.maildir}")
    print("Stop with Ctrl-C.", flush=True)
    if options.host not in _LOOPBACK or (page and options.http_host not in _LOOPBACK):
        print("Warning: others on the network can reach this, and read what was sent.", file=sys.stderr)
