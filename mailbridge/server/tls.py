"""The server's own side of TLS: a context from files, and what a finished handshake agreed on."""

import asyncio
import ssl
from collections.abc import Mapping

from mailbridge.config.values import as_text, invalid, unknown_option
from mailbridge.errors import ConfigurationError
from mailbridge.secret import Secret
from mailbridge.server.session import TLSSession

HANDSHAKE_SECONDS = 30.0  # for a handshake, which is less than asyncio allows by default
_KNOWN = ["cert_file", "key_file", "key_password"]


def server_context(given: object) -> ssl.SSLContext:
    """`given` itself if it is a context, else one from `cert_file`, `key_file` and `key_password`.

    TLS 1.2 at least, and no client certificates. Raises ConfigurationError, which names the option.
    """
    if isinstance(given, ssl.SSLContext):
        if given.protocol == ssl.PROTOCOL_TLS_CLIENT:
            raise invalid("tls", "is a context for clients; a server needs ssl.PROTOCOL_TLS_SERVER")
        return given
    if not isinstance(given, Mapping):
        raise invalid("tls", "must be an ssl.SSLContext or a mapping with cert_file and key_file")
    for name in given:
        if name not in _KNOWN:
            raise unknown_option(str(name), _KNOWN, "tls.")
    if "cert_file" not in given:
        raise invalid("tls", "needs a cert_file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    cert_file = as_text("tls.cert_file", given["cert_file"])
    key_file = as_text("tls.key_file", given["key_file"]) if given.get("key_file") is not None else None
    password = given.get("key_password")
    secret = password if isinstance(password, Secret) else Secret(str(password or ""))
    try:
        # A function, so that OpenSSL never asks at a terminal for the password of an encrypted key.
        context.load_cert_chain(cert_file, key_file, password=secret.reveal)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"Option 'tls': the certificate {cert_file} or its key can't be used: {error}", stage="config"
        ) from None
    return context


def tls_session(transport: asyncio.BaseTransport) -> TLSSession | None:
    """What was agreed on, None in clear text."""
    connection = transport.get_extra_info("ssl_object")
    if connection is None:
        return None
    cipher = connection.cipher()
    return TLSSession(version=connection.version() or "", cipher=cipher[0] if cipher else "")
