"""`ConfiguredBackend`: everything about an e-mail backend but the sending.

Knows its options, shows them as Django's own backend does, and opens and closes as Django expects.
It holds no connection: the mailer of this process has the pool, and `close()` closes none.
"""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

from django.conf import settings
from django.core.mail.backends import smtp
from django.utils.encoding import force_str

import mailbridge
from mailbridge import (
    ConfigurationError,
    Envelope,
    InvalidAddress,
    Mailer,
    Secret,
    SMTPConfig,
    clears_locals,
    shown_name,
)
from mailbridge_django import error_reports
from mailbridge_django import options as naming
from mailbridge_django.compat import KNOWS_MAILERS, InvalidMailer, MailerMisconfigured, uses_mailers
from mailbridge_django.logs import report
from mailbridge_django.options import Options
from mailbridge_django.resolver import load_resolver

# The alias of a backend that is made by hand where MAILERS is defined: Django 6.1 wants one.
AD_HOC = "<ad hoc>"

error_reports.mask_configured()  # for projects without the app: Django loads backends with its settings there


class ConfiguredBackend(smtp.EmailBackend):
    """An e-mail backend with the options and attributes of Django's own and the options of mailbridge."""

    alias: str | None
    username: Any
    connection: Mailer | None  # type: ignore[assignment]  # Django's is an smtplib.SMTP

    @clears_locals
    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        username: Any = None,
        password: Any = None,
        use_tls: bool | None = None,
        fail_silently: bool = False,
        use_ssl: bool | None = None,
        timeout: float | None = None,
        ssl_keyfile: Any = None,
        ssl_certfile: Any = None,
        **kwargs: Any,
    ) -> None:
        keywords = naming.given(
            host=host,
            port=port,
            username=username,
            password=password,
            use_tls=use_tls,
            use_ssl=use_ssl,
            timeout=timeout,
            ssl_keyfile=ssl_keyfile,
            ssl_certfile=ssl_certfile,
            **{name: kwargs.pop(name) for name in naming.OWN_NAMES if name in kwargs},
        )
        self._keywords = {**keywords, **kwargs, "fail_silently": fail_silently}
        alias = kwargs.setdefault("alias", AD_HOC if uses_mailers() else None)
        package = naming.package_options() if alias is None else {}
        options = naming.layered(keywords, package)
        fail_silently = bool(options.pop("fail_silently", False) or fail_silently)
        flags_decide = naming.flags_decide([keywords, package])
        self._start(options, flags_decide, fail_silently, kwargs)
        self.alias = alias
        self._resolver = load_resolver(options.get("config_resolver"), alias)
        self._options = self._with_settings(options, flags_decide)
        self._config = naming.config_for(self._options, alias)
        self._show()

    def _start(self, options: Options, flags_decide: bool, fail_silently: bool, kwargs: Options) -> None:
        """Django's own constructor: it reads EMAIL_* where nothing is given, and refuses unknown names."""
        alias = kwargs["alias"]
        names = {name: options.get(name) for name in naming.DJANGO_NAMES}
        if not flags_decide:
            names |= {"use_tls": False, "use_ssl": False}
        if alias is not None:
            if options.keys().isdisjoint(("host", "url", "service", "servers")):
                raise MailerMisconfigured(
                    "OPTIONS must define 'host' or 'url', or 'service', or 'servers'.", alias=alias
                )
            names["host"] = names["host"] or ""
        self._refuse_unknown(kwargs)
        try:
            super().__init__(fail_silently=fail_silently, **names, **kwargs)
        except (InvalidMailer, ValueError) as error:
            # Django 6.1 has put the alias into the text itself.
            raise MailerMisconfigured(str(error), alias=None if KNOWS_MAILERS else alias) from error

    def _refuse_unknown(self, kwargs: Mapping[str, Any]) -> None:
        """Name what is no option where Django, before 6.1, would let it pass, and give a hint after."""
        expected = {"alias", "_ignore_unknown_kwargs", *(kwargs.get("_ignore_unknown_kwargs") or ())}
        unknown = [name for name in kwargs if name not in expected]
        if not unknown:
            return
        hint, alias = naming.did_you_mean(unknown), kwargs["alias"]
        names = ", ".join(repr(shown_name(name)) for name in unknown)
        if alias is not None:
            raise MailerMisconfigured(f"Unknown options {names}.", alias=alias, hint=hint)
        if not KNOWS_MAILERS:
            report(logging.WARNING, "EmailBackend ignores the unknown options %s. %s", names, hint)

    def _with_settings(self, options: Options, flags_decide: bool) -> Options:
        """`options` over what Django's constructor has found in EMAIL_*, with the flags translated."""
        if self.alias is None and options.keys().isdisjoint(("url", "servers")):
            found = naming.given(**{name: getattr(self, name) for name in naming.DJANGO_NAMES})
            # EMAIL_PORT is 25 even if nobody has set it, which must go neither with TLS nor with LMTP.
            has_other_default = not flags_decide or options.get("protocol") == "lmtp"
            if has_other_default and "port" not in options and not settings.is_overridden("EMAIL_PORT"):
                del found["port"]
            if "service" in options:  # EMAIL_HOST and its like are there even if nobody has set them
                found = {name: value for name, value in naming.layered(options, found).items() if value != ""}
            options = {**options, **found}
        if flags_decide:
            options = {**options, "security": naming.security_of(options)}
        return options

    def _show(self) -> None:
        """Let the attributes of Django's backend tell what counts, and notice when they are set later."""
        self.host, self.port = self._config.host, self._config.port
        self.username, self.password = self._config.username or "", self._config.password or ""
        self.use_tls = self._config.security in ("starttls", "opportunistic")
        self.use_ssl = self._config.security == "tls"
        for name in ("timeout", "ssl_keyfile", "ssl_certfile"):
            setattr(self, name, self._options.get(name))
        self._shown = self._attributes()

    def _attributes(self) -> Options:
        shown = {name: getattr(self, name) for name in naming.DJANGO_NAMES if name != "password"}
        return {**shown, "password": self._password}

    @property
    def password(self) -> Any:
        """In the clear, as people expect of Django's backend; kept as a Secret."""
        return self._password.reveal() if isinstance(self._password, Secret) else self._password

    @password.setter
    def password(self, value: Any) -> None:
        self._password = Secret(value) if isinstance(value, str) else value

    def __deepcopy__(self, memo: object) -> Self:
        # Before Django 6.1 a message keeps the backend that it was sent by, and messages are copied.
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """As it was made, for messages that are pickled after they were sent."""
        if not self._keywords.keys().isdisjoint(("password", "url", "servers")):
            raise TypeError("A backend that was given credentials can't be pickled; configure it in settings")
        return partial(type(self), **self._keywords), ()

    def __repr__(self) -> str:
        # Tracebacks show it half made.
        known = vars(self)
        server = known["_config"].server if "_config" in known else None
        return f"<{type(self).__name__} alias={known.get('alias')!r} server={server!r}>"

    @property
    def config(self) -> SMTPConfig:
        """The configuration as it stands now. Raises MailerMisconfigured."""
        now = self._attributes()
        if now == self._shown:
            return self._config
        changed = {name: value for name, value in now.items() if value != self._shown[name]}
        if "use_tls" in changed or "use_ssl" in changed:
            changed["security"] = naming.security_of(now)
        return naming.build_config(naming.layered(changed, self._options), self.alias)

    @property
    def lacks_half_of_credentials(self) -> bool:
        """Whether a user name stands without a password, or the reverse: then Django does not log in."""
        if self._config.has_credentials or mailbridge.needs_no_password(self._options.get("auth")):
            return False
        has_key = bool(self._options.get("password")) or self._options.get("oauth2") is not None
        return bool(self._options.get("username")) != has_key

    @property
    def has_resolver(self) -> bool:
        """Whether a `config_resolver` chooses the server for each message."""
        return self._resolver is not None

    # -- Django's verbs -----------------------------------------------------------------------------------

    def open(self) -> bool | None:
        """Make sure that a session with the server can be had, and leave it to the pool.

        True if this backend was not open, False if it was, None if it can't be and `fail_silently`.
        Raises what is wrong otherwise. Any number of opened backends share the pool's sessions.
        """
        if self.connection is not None:
            return False
        try:
            mailer = mailbridge.mailer_for(self.config)
            mailer.connect()
        except ConfigurationError:
            raise
        except OSError:
            if not self.fail_silently:
                raise
            return None
        self.connection = mailer
        return True

    def close(self) -> None:
        """Be no longer open. The pool keeps its sessions; `mailbridge.close_all()` closes them."""
        self.connection = None

    def prep_address(self, address: str, force_ascii: bool = True) -> str:
        """The bare address of `Name <a@b>` or `a@b`, its domain in ASCII. Raises InvalidAddress (ValueError).

        With `force_ascii` the local part must be ASCII too; without, the server needs SMTPUTF8.
        """
        envelope = Envelope(None, [force_str(address)])
        if force_ascii and envelope.needs_smtputf8:
            raise InvalidAddress(
                f"Invalid address {envelope.recipients[0]!r}: local-part contains non-ASCII characters"
            )
        return envelope.recipients[0]
