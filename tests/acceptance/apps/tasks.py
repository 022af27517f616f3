"""A Celery application without a broker: the worker asks itself for six mails as soon as it is ready."""

from __future__ import annotations

from celery import Celery, signals

from tests.acceptance.apps import FIRST, LAST, send

app = Celery("tasks", broker="memory://")

send(FIRST)  # in the worker's main process, whose children inherit the session


@app.task
def send_mail(number: int) -> None:
    send(number)


@signals.worker_ready.connect
def ask(**_: object) -> None:
    for number in range(2, 8):
        send_mail.delay(number)


@signals.worker_shutdown.connect
def end(**_: object) -> None:
    """In the main process, once its children are gone."""
    send(LAST)
