"""The clients: each opens what it keeps open, and then sends one message at each call.

Every one composes its message anew each time by its own means, as an application does, and verifies the
server's certificate (but Flask-Mail, which has no way to). Libraries are imported where they are used: one
process runs one client, and one that is not installed is left out.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from email.message import EmailMessage
from typing import Any

from benchmarks.job import SENDER, SUBJECT, TEXT, Job

Send = Callable[[], object]
Peer = Callable[[Job], AbstractContextManager[Send]]

TIMEOUT = 20.0  # seconds; nothing takes so long on loopback
DJANGOS_OWN = "django.core.mail.backends.smtp.EmailBackend"
MAILBRIDGE = "mailbridge_django.EmailBackend"


def composed(job: Job) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, ", ".join(job.addresses), SUBJECT
    message.set_content(TEXT)
    return message


@contextmanager
def smtplib_kept_open(job: Job) -> Iterator[Send]:
    with smtplib.SMTP(job.host, job.port, local_hostname="localhost", timeout=TIMEOUT) as client:
        client.starttls(context=ssl.create_default_context(cafile=job.ca_file))
        client.login(job.username, job.password)
        yield lambda: client.send_message(composed(job))


@contextmanager
def aiosmtplib_kept_open(job: Job) -> Iterator[Send]:
    import aiosmtplib

    client = aiosmtplib.SMTP(
        hostname=job.host,
        port=job.port,
        username=job.username,
        password=job.password,
        cert_bundle=job.ca_file,
        timeout=TIMEOUT,
    )
    with asyncio.Runner() as runner:
        runner.run(client.connect())
        yield lambda: runner.run(client.send_message(composed(job)))
        runner.run(client.quit())


def configure_django(job: Job, backend: str, **options: Any) -> None:
    import django
    from django.conf import settings

    options |= {"host": job.host, "port": job.port, "username": job.username, "password": job.password}
    if django.VERSION >= (6, 1):
        settings.configure(MAILERS={"default": {"BACKEND": backend, "OPTIONS": {**options, "use_tls": True}}})
        return
    settings.configure(
        EMAIL_BACKEND=backend,
        EMAIL_HOST=options.pop("host"),
        EMAIL_PORT=options.pop("port"),
        EMAIL_HOST_USER=options.pop("username"),
        EMAIL_HOST_PASSWORD=options.pop("password"),
        EMAIL_USE_TLS=True,
        MAILBRIDGE=options,
    )


def send_by_django(job: Job, connection: Any = None) -> Send:
    from django.core.mail import EmailMessage as DjangoMessage

    return lambda: DjangoMessage(SUBJECT, TEXT, SENDER, job.addresses, connection=connection).send()


@contextmanager
def djangos_own(job: Job) -> Iterator[Send]:
    configure_django(job, DJANGOS_OWN)
    yield send_by_django(job)


@contextmanager
def djangos_own_kept_open(job: Job) -> Iterator[Send]:
    configure_django(job, DJANGOS_OWN)
    from django.core import mail

    connection = mail.mailers["default"] if hasattr(mail, "mailers") else mail.get_connection()
    with connection:
        # Not message.send(): Django 6.1 takes no connection there.
        def send() -> int:
            message = mail.EmailMessage(SUBJECT, TEXT, SENDER, job.addresses)
            return connection.send_messages([message]) or 0

        yield send


@contextmanager
def mailbridge_in_django(job: Job) -> Iterator[Send]:
    configure_django(job, MAILBRIDGE, tls={"ca_file": job.ca_file})
    yield send_by_django(job)


@contextmanager
def mailbridge_in_django_without_pool(job: Job) -> Iterator[Send]:
    configure_django(job, MAILBRIDGE, tls={"ca_file": job.ca_file}, pool=False)
    yield send_by_django(job)


@contextmanager
def flask_app(**config: Any) -> Iterator[Any]:
    from flask import Flask

    app = Flask(__name__)
    app.config.from_mapping(config)
    with app.app_context():
        yield app


def flask_mail_keys(job: Job) -> dict[str, Any]:
    return {
        "MAIL_SERVER": job.host,
        "MAIL_PORT": job.port,
        "MAIL_USE_TLS": True,
        "MAIL_USERNAME": job.username,
        "MAIL_PASSWORD": job.password,
        "MAIL_DEFAULT_SENDER": SENDER,
    }


@contextmanager
def flask_mail(job: Job) -> Iterator[Send]:
    from flask_mail import Mail, Message

    with flask_app(**flask_mail_keys(job)) as app:
        mail = Mail(app)
        yield lambda: mail.send(Message(SUBJECT, job.addresses, TEXT))


@contextmanager
def flask_mail_kept_open(job: Job) -> Iterator[Send]:
    from flask_mail import Mail, Message

    with flask_app(**flask_mail_keys(job)) as app, Mail(app).connect() as connection:
        yield lambda: connection.send(Message(SUBJECT, job.addresses, TEXT))


@contextmanager
def mailbridge_in_flask(job: Job) -> Iterator[Send]:
    from mailbridge_flask import Mail, Message

    with flask_app(**flask_mail_keys(job), MAILBRIDGE_TLS={"ca_file": job.ca_file}) as app:
        mail = Mail(app)
        yield lambda: mail.send(Message(SUBJECT, job.addresses, TEXT))


@contextmanager
def mailbridge_alone(job: Job) -> Iterator[Send]:
    import mailbridge

    config = mailbridge.SMTPConfig(
        host=job.host,
        port=job.port,
        username=job.username,
        password=job.password,
        tls={"ca_file": job.ca_file},
    )
    with mailbridge.Mailer(config) as mailer:
        yield lambda: mailer.send(composed(job))
