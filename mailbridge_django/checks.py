"""System checks: what can be known to be wrong with the mail settings without the network.

    mailbridge.E001   the options of a mailer can't work
    mailbridge.W001   credentials for a server that is reached in clear text
    mailbridge.W002   certificates are not verified
    mailbridge.W004   MAILBRIDGE says nothing where MAILERS is defined
    mailbridge.W005   OAuth2 tokens in a cache that workers can't share safely
    mailbridge.W006   a rate limiter over a cache that workers don't share
    mailbridge.W007   a user name without a password, or the reverse
    mailbridge.W008   a password that error reports can show

Whether a server can be reached and logged in to is the question of `manage.py verify_smtp`.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from mailbridge import Secret, SMTPConfig
from mailbridge_django.backend import EmailBackend
from mailbridge_django.compat import MailerMisconfigured, uses_mailers
from mailbridge_django.error_reports import shown_by_reports
from mailbridge_django.handler import mailers
from mailbridge_django.ratelimit import CacheRateLimiter
from mailbridge_django.token_store import CacheTokenStore

_UNSHARED = {
    "LocMemCache": "which each worker has for itself",
    "DummyCache": "which keeps nothing",
    "nothing": "which is not configured",
    "FileBasedCache": "where two workers can hold one lock",  # its `add` asks first and writes then
}


@register("mail")  # by name: Django has a constant for this tag only from 6.1 on
def check_mailers(**_: Any) -> list[CheckMessage]:
    """Make every mailer of the project that is mailbridge's, and look at what it would do."""
    try:
        return [*_idle_setting(), *(found for alias in mailers for found in _check(alias))]
    except MailerMisconfigured as error:
        return [_invalid(error)]


def _idle_setting() -> Iterator[CheckMessage]:
    if uses_mailers() and getattr(settings, "MAILBRIDGE", None):
        yield Warning(
            "The MAILBRIDGE setting has no effect, since MAILERS is defined.",
            hint="Move its options into the OPTIONS of the mailers.",
            id="mailbridge.W004",
        )


def _check(alias: str) -> Iterator[CheckMessage]:
    try:
        backend = mailers[alias]
    except MailerMisconfigured as error:
        yield _invalid(error)
        return
    except Exception:  # another backend's own trouble, which is not for us to judge
        return
    if isinstance(backend, EmailBackend):
        yield from _check_pair(alias, backend)
        yield from _check_reports(alias, backend.config)
        for server in backend.config.endpoints:
            yield from _check_credentials(alias, server.config)
            yield from _check_verification(alias, server.config)
            yield from _check_token_store(alias, server.config)
            yield from _check_rate_limiter(alias, server.config)


def _invalid(error: MailerMisconfigured) -> Error:
    return Error(error.message, hint=error.hint or None, id="mailbridge.E001")


def _check_pair(alias: str, backend: EmailBackend) -> Iterator[CheckMessage]:
    if backend.lacks_half_of_credentials:
        yield Warning(
            f"The mailer {alias!r} has a user name without a password, or the reverse: it will not log in.",
            hint="Give both, or neither.",
            id="mailbridge.W007",
        )


def _check_credentials(alias: str, config: SMTPConfig) -> Iterator[CheckMessage]:
    may_be_clear = config.security in ("none", "opportunistic")
    if config.has_credentials and may_be_clear and not _is_loopback(config):
        yield Warning(
            f"The mailer {alias!r} has credentials for {config.server} with security {config.security!r}: "
            + ("they can be read on the way." if config.allow_insecure_auth else "it refuses to send them."),
            hint="Set security to 'starttls' (use_tls) or 'tls' (use_ssl).",
            id="mailbridge.W001",
        )


def _check_reports(alias: str, config: SMTPConfig) -> Iterator[CheckMessage]:
    passwords = [server.config.password for server in config.endpoints]
    passwords += [proxy.password for server in config.endpoints for proxy in server.config.proxy]
    shown = shown_by_reports({each.reveal() for each in passwords if isinstance(each, Secret)})
    if shown:
        yield Warning(
            f"Error reports can show a password of the mailer {alias!r}: it stands in {', '.join(shown)}, "
            "which is not masked there.",
            hint="Keep it in a variable of the environment whose name has PASSWORD in it, and give it as "
            "'password'. A DEFAULT_EXCEPTION_REPORTER_FILTER of your own can derive from "
            "mailbridge_django.error_reports.ReportFilter.",
            id="mailbridge.W008",
        )


def _check_verification(alias: str, config: SMTPConfig) -> Iterator[CheckMessage]:
    if config.security != "none" and not config.tls.verify:
        yield Warning(
            f"The mailer {alias!r} does not verify the certificate of {config.server}: "
            "anybody on the way can read and change the mail.",
            hint="For a private authority name its certificate in tls.ca_file instead.",
            id="mailbridge.W002",
        )


def _check_token_store(alias: str, config: SMTPConfig) -> Iterator[CheckMessage]:
    store = config.oauth2.token_store if config.oauth2 is not None else None
    if not isinstance(store, CacheTokenStore):
        return
    cache = settings.CACHES.get(store.alias, {}).get("BACKEND", "nothing")
    problem = _UNSHARED.get(cache.rpartition(".")[2])
    if problem is not None:
        yield Warning(
            f"The mailer {alias!r} keeps its OAuth2 tokens in the cache {store.alias!r} ({cache}), "
            f"{problem}.",
            hint="Use a cache that all workers share (Redis, Memcached, database), or a FileTokenStore.",
            id="mailbridge.W005",
        )


def _check_rate_limiter(alias: str, config: SMTPConfig) -> Iterator[CheckMessage]:
    limiter = config.rate
    if not isinstance(limiter, CacheRateLimiter):
        return
    cache = settings.CACHES.get(limiter.alias, {}).get("BACKEND", "nothing")
    name = cache.rpartition(".")[2]
    if name in _UNSHARED and name != "FileBasedCache":  # there it locks a file
        yield Warning(
            f"The rate of the mailer {alias!r} is kept in the cache {limiter.alias!r} ({cache}), "
            f"{_UNSHARED[name]}.",
            hint="Use a cache that all workers share (Redis, Memcached, database, files).",
            id="mailbridge.W006",
        )


def _is_loopback(config: SMTPConfig) -> bool:
    if config.unix_path is not None or config.host == "localhost":
        return True
    try:
        return ip_address(config.host).is_loopback
    except ValueError:
        return False
