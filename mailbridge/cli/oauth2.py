"""`mailbridge oauth2 authorize`: a person consents, and the refresh token goes into a FileTokenStore.

Arguments and printing; how consent is asked for stands in `oauth2.consent`.
"""

import argparse
import os
import sys
import time
import webbrowser
from pathlib import Path
from typing import Any

from mailbridge import ConfigurationError, SMTPConfig
from mailbridge.config.oauth2 import OAuth2Options, endpoints
from mailbridge.config.oauth2_providers import PROVIDERS
from mailbridge.deadline import Deadline
from mailbridge.oauth2.authorize import Consent
from mailbridge.oauth2.store import FileTokenStore

SECRET_VARIABLE = "MAILBRIDGE_CLIENT_SECRET"  # noqa: S105  # the name of a variable
# As long as providers keep a device code.
CONSENT_SECONDS = 900.0
# How long the store's lock is waited for: longer than a token request of a running application may take.
LOCK_SECONDS = 90.0


def add_authorize(oauth2: argparse.ArgumentParser) -> None:
    """Add the command and its arguments below `mailbridge oauth2`."""
    commands = oauth2.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "authorize",
        help="ask a person for consent, in a browser or on another device",
        description="Gets a refresh token and writes it to a FileTokenStore. Give the options that the "
        "application has: tokens are kept under a name that is made of all of them.",
    )
    command.set_defaults(run=_authorize, config=_config, json=False)
    command.add_argument("--username", required=True, metavar="ADDRESS", help="the mailbox")
    command.add_argument("--store", required=True, metavar="FOLDER", help="the folder of the FileTokenStore")
    command.add_argument("--client-id", required=True)
    command.add_argument(
        "--client-secret-file", metavar="PATH", type=Path, help=f"default: ${SECRET_VARIABLE}, or none"
    )
    command.add_argument("--provider", choices=sorted(PROVIDERS))
    for name in ("--tenant", "--scope", "--token-url", "--authorize-url", "--device-url"):
        command.add_argument(name)
    command.add_argument("--device", action="store_true", help="show a code to type in on another device")
    command.add_argument("--no-browser", action="store_true", help="only print the address to open")
    command.add_argument("--proxy", metavar="URL")
    command.add_argument("--ca-file", metavar="PATH")
    command.add_argument("--timeout", type=float, default=CONSENT_SECONDS, metavar="SECONDS")
    command.add_argument("--debug", action="store_true", help="show log lines, secrets masked")


def _config(arguments: argparse.Namespace) -> SMTPConfig:
    path: Path | None = arguments.client_secret_file
    secret = path.read_text().strip() if path is not None else os.environ.get(SECRET_VARIABLE)
    oauth2: dict[str, Any] = {
        "grant": "refresh_token",
        "provider": arguments.provider,
        "tenant": arguments.tenant,
        "token_url": arguments.token_url,
        "client_id": arguments.client_id,
        "client_secret": secret,
        "scope": arguments.scope,
        "token_store": FileTokenStore(arguments.store),
        "tls": {"ca_file": arguments.ca_file},
    }
    return SMTPConfig(username=arguments.username, oauth2=oauth2, proxy=arguments.proxy)


def _authorize(config: SMTPConfig, arguments: argparse.Namespace) -> int:
    options = config.oauth2
    if options is None:  # it never is: `_config` gives it
        raise ConfigurationError("There is no OAuth2 in this configuration", stage="config")
    url, scope = _asked(options, arguments)
    consent = Consent(
        config=config,
        options=options,
        username=arguments.username,
        scope=scope,
        show=_show if arguments.no_browser or arguments.device else _open,
        deadline=Deadline.after(arguments.timeout),
        wall_clock=time.time,
    )
    token = consent.by_device(url, time.sleep) if arguments.device else consent.in_browser(url)
    key = options.fingerprint(arguments.username)
    with options.token_store.lock(key, LOCK_SECONDS):
        options.token_store.save(key, token)
    print(f"The tokens of {arguments.username} are kept. Configure the application with the same options,")
    print(f'"grant": "refresh_token", and "token_store": "file:{options.token_store.folder}".')
    return 0


def _asked(options: OAuth2Options, arguments: argparse.Namespace) -> tuple[str, str]:
    """Where consent is asked for, and the scope."""
    given = arguments.device_url if arguments.device else arguments.authorize_url
    if given:
        if not given.startswith("https://"):
            raise ConfigurationError("The address for consent must begin with https://", stage="config")
        return given, options.scope
    device, authorize, scope = endpoints(options)
    return (device if arguments.device else authorize), scope


def _show(address: str, code: str) -> None:
    print(f"Open {address}", file=sys.stderr)
    if code:
        print(f"and type in the code {code}", file=sys.stderr)


def _open(address: str, code: str) -> None:
    _show(address, code)
    webbrowser.open(address)
