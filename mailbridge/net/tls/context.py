"""TLS policy: one `SSLContext` for equal options, verified unless said otherwise.

A context costs about 15 ms and some hundred kilobytes, so it is built once per process and set of
options, and again when one of its files has changed. Handshakes are `streams`'; what a failed one
means is told by `tls_errors`, what a good one agreed on by `tls_facts`.

There is no lock, which a forked child could inherit held: each step on a dict is atomic, and two
threads that build the same context at once waste some milliseconds. A child builds its own contexts
for the same reason: OpenSSL locks a context's certificates while another thread verifies with them.
"""

import os
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import replace

from mailbridge.config.groups import TLSOptions
from mailbridge.config.values import ROOT
from mailbridge.errors import ConfigurationError
from mailbridge.logs import Log
from mailbridge.net.tls.errors import tls_error
from mailbridge.net.tls.facts import TLSFacts
from mailbridge.net.tls.sessions import SessionStore, sessions
from mailbridge.net.tls.strength import is_lowered
from mailbridge.process import PerProcess

__all__ = [
    "context_for",
    "forget_contexts",
    "sessions",
    "SessionStore",
    "TLSFacts",
    "tls_error",
]

# A process with more servers than this builds contexts anew; each holds the system's whole store.
MOST_CONTEXTS = 64

_Key = tuple[TLSOptions, tuple[tuple[int, int], ...]]
_contexts: PerProcess[dict[_Key, ssl.SSLContext]] = PerProcess(dict)


def context_for(options: TLSOptions) -> ssl.SSLContext:
    """The context for `options`: the same one for equal options, until one of their files changes.

    Raises ConfigurationError, naming option and file, for what can't be read or used.
    """
    if options.context is not None:
        return options.context
    # The name to verify belongs to the handshake, not to the context.
    key = replace(options, server_hostname=None), tuple(_stamps(options))
    contexts = _contexts.get()
    known = contexts.get(key)
    if known is not None:
        contexts.pop(key, None)
        contexts[key] = known  # the last to be used is the last to go
        return known
    context = contexts.setdefault(key, _build(options))  # another thread may have been faster
    for oldest in list(contexts)[:-MOST_CONTEXTS]:
        contexts.pop(oldest, None)
    return context


def forget_contexts() -> None:
    """Build all contexts anew from now on, and resume no TLS session."""
    _contexts.get().clear()
    sessions.forget()


def _bad(option: str, problem: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError(f"Option 'tls.{option}': {problem}", stage="config", hint=hint)


def _stamps(options: TLSOptions) -> Iterator[tuple[int, int]]:
    """Time of change and size of each file; a renewed certificate makes a new context."""
    for option in ("ca_file", "ca_path", "cert_file", "key_file"):
        path: str | None = getattr(options, option)
        if path is None:
            continue
        try:
            if option == "ca_path":
                os.listdir(path)
            else:
                with open(path, "rb"):
                    pass
            found = os.stat(path)
        except (OSError, ValueError) as problem:
            raise _bad(option, f"can't read {path!r}: {_text(problem)}") from None
        yield found.st_mtime_ns, found.st_size


def _text(problem: Exception) -> str:
    return getattr(problem, "strerror", None) or str(problem)


def _build(options: TLSOptions) -> ssl.SSLContext:
    context = _trusting(options)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.hostname_checks_common_name = options.allow_common_name
    if not options.strict:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # Renegotiation (TLS 1.2) is of no use to a mail client and has only ever brought trouble.
    context.options |= ssl.OP_NO_RENEGOTIATION
    _set_versions(context, options)
    if options.cert_file is not None:
        _load_client_certificate(context, options, options.cert_file)
    return context


def _trusting(options: TLSOptions) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=options.ca_file, capath=options.ca_path)
    except (OSError, ValueError) as problem:  # ssl.SSLError is an OSError
        # A folder is only read while verifying, so that what can be wrong is in the file.
        raise _bad("ca_file", f"no certificates in PEM format in {options.ca_file!r}") from problem


def _set_versions(context: ssl.SSLContext, options: TLSOptions) -> None:
    wanted = ssl.TLSVersion[options.min_version.replace(".", "_")]
    ciphers = options.ciphers
    if wanted >= ssl.TLSVersion.TLSv1_2:
        context.minimum_version = wanted
    else:
        with warnings.catch_warnings():
            # Python deprecates the old versions; whoever asks for them by name has been told.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = wanted
        if is_lowered(options):
            Log(ROOT, "").weak_tls(options.min_version)
        ciphers = ciphers or "DEFAULT:@SECLEVEL=0"  # OpenSSL 3 speaks TLS 1.0 and 1.1 on this level only
    if ciphers is not None:
        try:
            context.set_ciphers(ciphers)
        except ssl.SSLError:
            hint = "It takes an OpenSSL cipher list (see: openssl ciphers -v LIST)."
            raise _bad("ciphers", f"OpenSSL knows no cipher of {ciphers!r}", hint) from None


class _NoPassword(Exception):
    """OpenSSL asks for a password that was not given; without this it would ask on the terminal."""


def _load_client_certificate(context: ssl.SSLContext, options: TLSOptions, cert_file: str) -> None:
    key_option = "key_file" if options.key_file else "cert_file"
    key_path = options.key_file or cert_file
    was_asked = False

    def password() -> str:
        nonlocal was_asked
        was_asked = True
        if options.key_password is None:
            raise _NoPassword
        return options.key_password.reveal()

    try:
        context.load_cert_chain(cert_file, options.key_file, password)
    except _NoPassword:
        raise _bad(key_option, f"the key in {key_path!r} is encrypted", "Set tls.key_password.") from None
    except (OSError, ValueError) as problem:
        if was_asked:
            raise _bad("key_password", f"does not open the key in {key_path!r}") from None
        if getattr(problem, "reason", None) == "KEY_VALUES_MISMATCH":
            message = f"the key in {key_path!r} does not belong to the certificate in {cert_file!r}"
            raise _bad(key_option, message) from None
        where = repr(cert_file) if key_path == cert_file else f"{cert_file!r} and {key_path!r}"
        message = f"no certificate with its key, in PEM format, in {where}"
        raise _bad("cert_file", message) from problem
