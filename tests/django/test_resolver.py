"""mailbridge_django.resolver: what a config_resolver may be and may return."""

from typing import Any

import pytest
from django.core.mail import EmailMessage

from mailbridge import ConfigurationError, SMTPConfig
from mailbridge_django import InvalidMailer
from mailbridge_django.resolver import load_resolver, resolved_config


def tenant_server(message: EmailMessage, alias: str) -> str:
    return f"smtp://{alias}.example/"


def test_by_its_dotted_path() -> None:
    assert load_resolver(f"{__name__}.tenant_server", None) is tenant_server
    assert load_resolver(tenant_server, None) is tenant_server
    assert load_resolver(None, None) is None


@pytest.mark.parametrize("wrong", ["no.such.module", "tests.django.test_resolver.nothing", 3, ["x"]])
def test_what_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidMailer, match=r"MAILERS\['bulk'\]: .*config_resolver"):
        load_resolver(wrong, "bulk")


@pytest.mark.parametrize(
    ("answer", "config"),
    [
        (None, None),
        (SMTPConfig(host="h"), SMTPConfig(host="h")),
        ("smtps://h/", SMTPConfig(host="h", security="tls", allow_internal_networks=False)),
        # mailbridge's own options with its own defaults: STARTTLS is required.
        ({"host": "h", "username": "u", "password": "p"}, SMTPConfig(host="h", username="u", password="p")),
    ],
)
def test_what_it_may_return(answer: Any, config: SMTPConfig | None) -> None:
    assert resolved_config(lambda message, alias: answer, EmailMessage(), "default") == config


@pytest.mark.parametrize(
    "answer",
    [
        3,
        {"hosst": "h", "password": "hunter2"},
        "smtp://u:hunter2@h/?nonsense=1",
        "smtp://u:hunter2@h/?proxy.handler=os.system",
        "smtp://u:hunter2@h/?tls.verify=false",
        {"use_tls": True},
        b"smtp://h",
    ],
)
def test_what_it_must_not_return(answer: Any) -> None:
    with pytest.raises(ConfigurationError, match="The config_resolver returned") as caught:
        resolved_config(lambda message, alias: answer, EmailMessage(), "default")
    assert "hunter2" not in str(caught.value)


def test_it_is_asked_with_message_and_alias() -> None:
    config = resolved_config(tenant_server, EmailMessage(), "bulk")
    assert config is not None
    assert config.host == "bulk.example"
