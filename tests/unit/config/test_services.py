"""The well-known services: found by every name they go by, sound by their own rules, beneath what is said."""

import json
import pickle
import subprocess
import sys
from ipaddress import ip_address

import pytest

from mailbridge import ConfigurationError, Mailer, SMTPConfig
from mailbridge.cli.main import main
from mailbridge.config.services import Service, _key, all_services, find_service
from mailbridge.testing import Fault, ScriptedServer

# What must be there, by the names that people use.
WANTED = (
    *("gmail", "outlook365", "outlook", "hotmail", "yahoo", "icloud", "aol", "fastmail", "proton", "zoho"),
    *("zoho-eu", "zoho-in", "gmx", "gmx-net", "web.de", "ionos", "yandex", "mail.ru", "qq", "163", "126"),
    *(
        "exmail",
        "feishu",
        "naver",
        "infomaniak",
        "gandi",
        "ovh",
        "runbox",
        "mailbox.org",
        "godaddy",
        "aliyun",
    ),
    *("ses", "sendgrid", "sendgrid-eu", "mailgun", "mailgun-eu", "postmark", "postmark-broadcasts", "brevo"),
    *("sendinblue", "sparkpost", "sparkpost-eu", "mandrill", "mailjet", "mailersend", "resend", "mailtrap"),
    *(
        "mailtrap-bulk",
        "mailtrap-sandbox",
        "zeptomail",
        "zeptomail-eu",
        "smtp2go",
        "elasticemail",
        "scaleway",
    ),
    *("azure", "forwardemail", "mailpace", "sendpulse", "loops", "ethereal", "maildev", "mailpit"),
)
SES_REGIONS = (
    *("us-east-1", "us-east-2", "us-west-1", "us-west-2", "us-gov-east-1", "us-gov-west-1", "ca-central-1"),
    *("eu-west-1", "eu-west-2", "eu-west-3", "eu-central-1", "eu-central-2", "eu-north-1", "eu-south-1"),
    *("ap-south-1", "ap-south-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-southeast-1"),
    *(
        "ap-southeast-2",
        "ap-southeast-3",
        "sa-east-1",
        "af-south-1",
        "il-central-1",
        "me-south-1",
        "me-central-1",
    ),
)


@pytest.mark.parametrize("name", WANTED)
def test_a_service_that_matters_is_there(name: str) -> None:
    assert SMTPConfig(service=name).host == find_service(name).host


@pytest.mark.parametrize("region", SES_REGIONS)
def test_every_region_of_ses(region: str) -> None:
    config = SMTPConfig(service=f"SES-{region.upper()}")
    assert (config.host, config.port) == (f"email-smtp.{region}.amazonaws.com", 465)
    assert config.service is not None
    assert config.service.hint == find_service("ses").hint


@pytest.mark.parametrize("service", all_services(), ids=lambda service: service.name)
def test_each_row_is_sound(service: Service) -> None:
    if service.host != "localhost":
        with pytest.raises(ValueError, match="does not appear"):
            ip_address(service.host)
        assert "." in service.host
        # In clear text nothing goes out of this machine.
        assert service.security == ("tls" if service.port == 465 else "starttls")
    assert service.host == service.host.lower().strip()
    config = SMTPConfig(service=service.name, allow_internal_networks=False)
    assert (config.host, config.port, config.security) == (service.host, service.port, service.security)
    for name in (service.name, *service.aliases, *service.domains):
        assert find_service(name) is service
    for domain in service.domains:
        assert find_service(f"somebody@{domain.title()}") is service


def test_no_name_stands_for_two_services() -> None:
    by_name: dict[str, str] = {}
    for each in all_services():
        for name in (each.name, *each.aliases, *each.domains):
            assert by_name.setdefault(_key(name), each.name) == each.name
    assert len(all_services()) > 100


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Gmail", "gmail"),
        ("GOOGLE MAIL", "gmail"),
        ("googlemail.com", "gmail"),
        ("ann@gmail.com", "gmail"),
        ("Elastic Email", "elasticemail"),
        ("Outlook.com", "outlook"),
        ("ses_eu_west_1", "ses-eu-west-1"),
        ("SendGrid EU", "sendgrid-eu"),
    ],
)
def test_a_service_goes_by_many_names(written: str, name: str) -> None:
    service = SMTPConfig(service=written).service
    assert service is not None
    assert service.name == name


@pytest.mark.parametrize(
    ("options", "endpoint"),
    [
        ({}, ("smtp.gmail.com", 465, "tls")),
        ({"port": 587}, ("smtp.gmail.com", 587, "starttls")),
        ({"security": "starttls"}, ("smtp.gmail.com", 587, "starttls")),
        ({"host": "relay.example"}, ("relay.example", 465, "tls")),
        ({"host": "relay.example", "port": 2525}, ("relay.example", 2525, "starttls")),
        ({"url": "smtp://relay.example"}, ("relay.example", 465, "tls")),
        ({"url": "smtps://u:p@/"}, ("smtp.gmail.com", 465, "tls")),
        ({"port": None, "host": None}, ("smtp.gmail.com", 465, "tls")),
    ],
)
def test_what_is_given_wins(options: dict[str, object], endpoint: tuple[str, int, str]) -> None:
    config = SMTPConfig.from_mapping({"service": "gmail", **options})
    assert (config.host, config.port, config.security) == endpoint


def test_in_a_url() -> None:
    config = SMTPConfig.from_url("smtp://u:p@/?service=sendgrid-eu&timeout=5")
    assert (config.server, config.security, config.username) == ("smtp.eu.sendgrid.net:465", "tls", "u")


@pytest.mark.parametrize(
    ("service", "username"), [("sendgrid", "apikey"), ("resend", "resend"), ("mailtrap", "api")]
)
def test_where_the_key_is_enough_the_user_name_is_known(service: str, username: str) -> None:
    assert SMTPConfig(service=service, password="key").username == username
    assert SMTPConfig(service=service, username="u", password="key").username == "u"
    assert SMTPConfig(service=service).username is None


def test_no_service_is_guessed() -> None:
    assert SMTPConfig(username="ann@gmail.com", password="p").host == "localhost"
    with pytest.raises(ConfigurationError, match="given without username"):
        SMTPConfig(service="gmail", password="p")


@pytest.mark.parametrize(
    ("written", "nearest"),
    [
        ("gmial", "'gmail'"),
        ("ses-eu-wset-1", "'ses-eu-west-1'"),
        ("Sendgird", "'sendgrid'"),
        ("send in blue!", "'brevo'"),
    ],
)
def test_one_that_is_not_known_is_named_with_the_nearest(written: str, nearest: str) -> None:
    with pytest.raises(ConfigurationError, match="No mail service") as caught:
        SMTPConfig(service=written)
    assert f"Did you mean {nearest}" in caught.value.hint
    with pytest.raises(ConfigurationError) as caught:
        SMTPConfig(service="zzzzzz")
    assert "Did you mean" not in caught.value.hint


@pytest.mark.parametrize("value", [7, "a\nb", b"gmail", ["gmail"]])
def test_what_is_no_name_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="service"):
        SMTPConfig.from_mapping({"service": value})


def test_a_configuration_with_one_is_a_key_and_travels() -> None:
    config = SMTPConfig(service="ses-eu-west-1", username="u", password="p")
    assert config == SMTPConfig(service="SES EU-WEST-1", username="u", password="p")
    assert hash(config) == hash(SMTPConfig(service="ses-eu-west-1", username="u", password="p"))
    assert pickle.loads(pickle.dumps(config.service)) == config.service
    assert "service=<Service ses-eu-west-1>" in repr(config)


def test_the_list_is_read_only_where_a_service_is_named() -> None:
    code = "import sys, mailbridge; mailbridge.SMTPConfig(); print('tomllib' in sys.modules);"
    code += "mailbridge.SMTPConfig(service='gmail'); print('tomllib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split() == ["False", "True"]


def verified(reply: str, service: str) -> str:
    refusal = Fault("auth", "reply", reply=reply)
    with ScriptedServer(users={"u": "p"}, faults=[refusal]) as server:
        config = SMTPConfig(
            service=service, host="127.0.0.1", port=server.port, security="none", username="u", password="p"
        )
        report = Mailer(config).verify()
    assert f"service {service}" in report["config"].detail
    return report["auth"].hint


def test_a_refused_login_says_what_this_service_wants() -> None:
    assert verified("535 5.7.8 Authentication failed", "gmail") == find_service("gmail").hint
    # What the server itself tells is more.
    assert "OAuth2" in verified("550 5.7.30 Basic authentication is not supported", "mailgun")
    assert verified("535 5.7.8 no", "godaddy").startswith("Check username and password")


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["services"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(all_services())
    assert any(line.split()[:3] == ["gmail", "smtp.gmail.com:465", "tls"] for line in lines)
    assert main(["services", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"name": "resend", "host": "smtp.resend.com", "port": 465}.items() <= told[
        [each["name"] for each in told].index("resend")
    ].items()
