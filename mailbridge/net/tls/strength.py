"""Small keys and weak signatures, which `tls.min_version` below 1.2 allows with those old versions only.

OpenSSL speaks TLS 1.0 and 1.1 on its security level 0 alone, and a level holds for all versions: a server
of today with a key of 512 bits would pass, too. So the certificate is judged once more after the handshake.
"""

import ssl
import tempfile

from mailbridge.config.groups import TLSOptions

_OLD_VERSIONS = ("TLSv1", "TLSv1.1")
# X509_V_ERR_EE_KEY_TOO_SMALL and X509_V_ERR_CA_MD_TOO_WEAK of OpenSSL's x509_vfy.h, by the reason's name.
_VERIFY_CODES = {"EE_KEY_TOO_SMALL": 66, "CA_KEY_TOO_SMALL": 67, "CA_MD_TOO_WEAK": 68}


def is_lowered(options: TLSOptions) -> bool:
    """Whether the context for `options` takes keys of any size. Who sets `ciphers` says the level there."""
    return options.context is None and options.min_version in _OLD_VERSIONS and options.ciphers is None


def require_usual_strength(connection: ssl.SSLObject) -> None:
    """Raise ssl.SSLCertVerificationError if the server's certificate passed by the lowered level only.

    Of a connection by TLS 1.2 or later; its own certificate is judged, not those of its authorities.
    """
    certificate = connection.getpeercert(binary_form=True)
    if certificate is None or connection.version() in _OLD_VERSIONS:
        return
    reason = ""
    # OpenSSL judges what a context is to show, and takes that from files only.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(ssl.DER_cert_to_PEM_cert(certificate))
        file.flush()
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(file.name)
        except ssl.SSLError as problem:  # always: there is no key in it
            reason = str(problem.reason)
    if reason in _VERIFY_CODES:
        error = ssl.SSLCertVerificationError(1, f"certificate verify failed: {reason}")
        error.verify_code, error.verify_message = _VERIFY_CODES[reason], reason
        raise error
