"""What a TLS failure means: from the exceptions of `ssl` and sockets to ours, with what to do.

Only classifies; nothing is sent or closed here.
"""

import ssl
from typing import NamedTuple

from mailbridge.errors import (
    CertificateRejected,
    ConnectTimeout,
    MailbridgeError,
    ProtocolViolation,
    TLSFailed,
    TLSModeMismatch,
)
from mailbridge.net.stream import PlaintextBeforeTLS
from mailbridge.reply import printable

# How much of a server's clear text an error shows.
_SHOWN_CHARACTERS = 80


class _Meaning(NamedTuple):
    problem: str
    hint: str


_UNKNOWN_CA = _Meaning(
    "is signed by an authority that is not trusted here",
    "For a private CA set tls.ca_file to its certificate. A server may also fail to send its intermediates.",
)
_WEAK = _Meaning("uses a key or signature too weak for OpenSSL", "Renew it; or lower tls.ciphers' @SECLEVEL.")
_OTHER_NAME = _Meaning(
    "is for another name",
    "Set host to a name in the certificate's subjectAltName, or tls.server_hostname if the server is reached"
    " by another. A name in the subject alone counts only with tls.allow_common_name.",
)
_STRICT = _Meaning(
    "breaks a rule of RFC 5280 ({said})",
    "Python 3.13 checks this by default; for an old private CA set tls.strict=False.",
)

# X509_V_ERR_… of OpenSSL's x509_vfy.h
_CERTIFICATES = {
    2: _UNKNOWN_CA,
    9: _Meaning("is not valid yet", "Check this machine's clock."),
    10: _Meaning("has expired", "The server's operator must renew it; check this machine's clock too."),
    18: _Meaning("is self-signed", "To trust this very certificate, set tls.ca_file to it."),
    19: _UNKNOWN_CA,
    20: _UNKNOWN_CA,
    21: _UNKNOWN_CA,
    23: _Meaning("has been revoked", "The server's operator must replace it."),
    62: _OTHER_NAME,
    64: _OTHER_NAME,
    66: _WEAK,
    67: _WEAK,
    68: _WEAK,
    **dict.fromkeys(range(80, 94), _STRICT),  # what X509_V_FLAG_X509_STRICT adds
}

_OLD_VERSION = _Meaning(
    "Server and client have no TLS version in common",
    "The server may only speak an old one: tls.min_version says what is allowed (TLSv1.2 by default).",
)
_NOT_OUR_CERTIFICATE = _Meaning(
    "The server does not accept the client certificate", "Check tls.cert_file and its validity."
)

_REASONS = {
    "UNSUPPORTED_PROTOCOL": _OLD_VERSION,
    "NO_PROTOCOLS_AVAILABLE": _OLD_VERSION,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD_VERSION,
    "WRONG_SSL_VERSION": _OLD_VERSION,
    "VERSION_TOO_LOW": _OLD_VERSION,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _Meaning(
        "The server requires a client certificate", "Set tls.cert_file and tls.key_file."
    ),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _Meaning(
        "The server refused the handshake",
        "It may require a client certificate (tls.cert_file), or share no cipher (tls.ciphers).",
    ),
    "TLSV1_ALERT_UNKNOWN_CA": _NOT_OUR_CERTIFICATE,
    "TLSV1_ALERT_ACCESS_DENIED": _NOT_OUR_CERTIFICATE,
    "SSLV3_ALERT_BAD_CERTIFICATE": _NOT_OUR_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _NOT_OUR_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _NOT_OUR_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _NOT_OUR_CERTIFICATE,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _NOT_OUR_CERTIFICATE,
    "TLSV1_UNRECOGNIZED_NAME": _Meaning("The server does not know the name asked for", _OTHER_NAME.hint),
    "DH_KEY_TOO_SMALL": _Meaning(
        "The server's key exchange is too weak for OpenSSL",
        "The server should be updated; else tls.ciphers='DEFAULT:@SECLEVEL=1' allows it.",
    ),
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": _Meaning(
        "The server lacks secure renegotiation (RFC 5746)", "The server must be updated."
    ),
}

# What OpenSSL says (it depends on its version) when a record doesn't start like one.
_NOT_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
)


def tls_error(
    exc: OSError, *, server: str, host: str, first_bytes: bytes = b"", mode: str = "tls"
) -> MailbridgeError:
    """The error for what came up during a TLS handshake, or at the first reads and writes after it.

    `server` is host:port, `host` the name that was to be verified, `first_bytes` what the server
    sent first (`Stream.handshake_bytes`), `mode` the option `security`. An error of mailbridge's
    own comes back as it is.
    """
    if isinstance(exc, MailbridgeError):
        return exc
    if isinstance(exc, PlaintextBeforeTLS):
        return _clear_text(server, exc.first_bytes, mode)
    if isinstance(exc, TimeoutError):
        message = "The TLS handshake did not end within the time limit"
        return ConnectTimeout(message, stage="tls", server=server, hint="The option is timeouts.connect.")
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _certificate(exc, server, host)
    if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        if _reason(exc) in _NOT_TLS and not _looks_like_tls(first_bytes):
            return _clear_text(server, first_bytes, mode)
        return _failed(exc, server)
    return _hung_up(exc, server, mode)


def _looks_like_tls(data: bytes) -> bool:
    # A record starts with its type and the version's first byte (RFC 8446 section 5.1).
    return len(data) > 1 and data[0] in range(20, 25) and data[1] == 3


def _clear_text(server: str, said: bytes, mode: str) -> MailbridgeError:
    shown = printable(said.partition(b"\n")[0].decode("latin-1").strip(), _SHOWN_CHARACTERS)
    quoted = f' (it sent "{shown}")' if shown else ""
    if mode != "tls":
        # After the 220 to STARTTLS nothing may come in clear: somebody may be injecting replies.
        message = f"The server sent clear text after it had agreed to STARTTLS{quoted}"
        return ProtocolViolation(message, stage="tls", server=server)
    port = server.rpartition(":")[2]
    return TLSModeMismatch(
        f"The server speaks clear text on port {port}, not TLS{quoted}",
        stage="tls",
        server=server,
        hint="Use security='starttls' for this port, or the server's port for TLS (usually 465).",
    )


def _certificate(exc: ssl.SSLCertVerificationError, server: str, host: str) -> CertificateRejected:
    code = getattr(exc, "verify_code", 0)
    said = getattr(exc, "verify_message", None) or str(exc)
    problem, hint = _CERTIFICATES.get(code, _Meaning("is not accepted ({said})", ""))
    error = CertificateRejected(
        f"The certificate of {host} {problem.format(said=said)}",
        stage="tls",
        server=server,
        hint=hint,
        verify_code=code,
        verify_message=said,
    )
    _keep_reason(error, exc)
    return error


def _failed(exc: ssl.SSLError, server: str) -> TLSFailed:
    reason = _reason(exc) or str(exc)
    said = reason.replace("_", " ").lower()
    problem, hint = _REASONS.get(reason, _Meaning("TLS failed", ""))
    error = TLSFailed(f"{problem} ({said})", stage="tls", server=server, hint=hint)
    _keep_reason(error, exc)
    return error


def _reason(exc: ssl.SSLError) -> str | None:
    # OpenSSL's errors carry it; those that Python code raises (contexts of the user's own) may not.
    reason: str | None = getattr(exc, "reason", None)
    return reason


def _keep_reason(error: ssl.SSLError, exc: ssl.SSLError) -> None:
    """For those who look at `reason`, as with an ssl.SSLError of Python's own."""
    reason = _reason(exc)
    if reason is not None:
        error.reason = reason


def _hung_up(exc: OSError, server: str, mode: str) -> TLSFailed:
    hint = "It may not speak TLS on this port: then use security='starttls'." if mode == "tls" else ""
    how = exc.strerror if isinstance(exc, ConnectionError) and exc.strerror else ""
    message = "The server ended the connection during the TLS handshake" + (f" ({how})" if how else "")
    error = TLSFailed(message, stage="tls", server=server, hint=hint)
    error.transient = True  # nothing is known against the TLS of either side
    error.errno = exc.errno if isinstance(exc, ConnectionError) else None
    return error
