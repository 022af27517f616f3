"""`config_resolver`: the server is chosen for each message, when it is sent.

For sites whose tenants have servers of their own, which settings can't express. Pools are kept by
configuration, so tenants never share one.
"""

from collections.abc import Callable, Mapping
from typing import Any

from django.core.mail import EmailMessage
from django.utils.module_loading import import_string

from mailbridge import ConfigurationError, SMTPConfig
from mailbridge_django.compat import MailerMisconfigured

#: What a resolver may return: a configuration, options of mailbridge, a URL, or None for the backend's own.
Resolution = SMTPConfig | Mapping[str, Any] | str | None
Resolver = Callable[[EmailMessage, str], Resolution]


def load_resolver(value: Resolver | str | None, alias: str | None) -> Resolver | None:
    """The callable that `value` is or names. Raises MailerMisconfigured."""
    if isinstance(value, str):
        try:
            value = import_string(value)
        except ImportError as error:
            raise MailerMisconfigured(f"No config_resolver can be imported: {error}", alias=alias) from error
    if value is not None and not callable(value):
        raise MailerMisconfigured(
            "Option 'config_resolver' must be a callable (message, alias) or the dotted path of one",
            alias=alias,
        )
    return value


def resolved_config(resolver: Resolver, message: EmailMessage, alias: str) -> SMTPConfig | None:
    """What `resolver` wants for `message`; None for the backend's own.

    Options and URLs are mailbridge's own, with its defaults (STARTTLS is required), and nothing of the
    backend's options is mixed in: its credentials are not meant for another server. A string is data: it
    may say only what `SMTPConfig.from_untrusted` takes.
    """
    answer = resolver(message, alias)
    try:
        if answer is None or isinstance(answer, SMTPConfig):
            return answer
        if isinstance(answer, str):
            return SMTPConfig.from_untrusted(answer)
        if isinstance(answer, Mapping):
            return SMTPConfig.from_mapping(answer)
        problem = f"a {type(answer).__name__}, which is no configuration"
    except ConfigurationError as error:
        problem = f"what can't work: {error}"
    finally:
        del answer  # it may hold a password, which no traceback may show
    raise MailerMisconfigured(f"The config_resolver returned {problem}", alias=alias)
