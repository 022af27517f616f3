"""What ties a login to the TLS channel that it goes over (RFC 5056): the channel bindings of a session.

Which one is used, and by which mechanism, is not asked here.
"""

import hashlib
import ssl
from importlib import import_module

from mailbridge.net.stream import Stream

# RFC 5929 section 4.1: the hash of the certificate's signature, but SHA-256 for those that are broken.
# Others, Ed25519's among them, have no binding there.
_HASHES = {
    "md5": "sha256",
    "sha1": "sha256",
    "sha224": "sha224",
    "sha256": "sha256",
    "sha384": "sha384",
    "sha512": "sha512",
}


def channel_bindings(stream: Stream) -> dict[str, bytes]:
    """The bindings of an open session, by type; none without TLS that ends at the server itself.

    tls-unique up to TLS 1.2 (RFC 5929 section 3; it is not defined for 1.3, RFC 8446 section C.5),
    tls-exporter for TLS 1.3 (RFC 9266) where Python's ssl can give it, and tls-server-end-point where
    the extra `scram` brings a reader of certificates.
    """
    tls = stream.ssl_object
    if tls is None or stream.tls is None:  # the latter: the innermost TLS may end at a proxy
        return {}
    kinds = ["tls-exporter"] if tls.version() == "TLSv1.3" else ["tls-unique"]
    found = {kind: tls.get_channel_binding(kind) for kind in kinds if kind in ssl.CHANNEL_BINDING_TYPES}
    certificate = tls.getpeercert(binary_form=True)
    if certificate is not None:
        found["tls-server-end-point"] = server_end_point(certificate)
    return {kind: data for kind, data in found.items() if data}


def server_end_point(certificate: bytes) -> bytes | None:
    """The hash of a certificate (DER) as tls-server-end-point has it; None if it has none."""
    try:
        x509 = import_module("asn1crypto.x509")
    except ImportError:
        return None
    try:
        signature = x509.Certificate.load(certificate)["signature_algorithm"]
        name = _HASHES[signature.hash_algo]
        if signature.signature_algo in ("ed25519", "ed448"):
            return None
    except (ValueError, KeyError):
        return None
    return hashlib.new(name, certificate).digest()
