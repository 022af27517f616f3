"""What is known of those who give tokens: their endpoints and, by grant, the scopes that mail needs."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What is known of one: its token endpoint and, by grant, the scopes that sending mail needs."""

    token_url: str
    device_url: str
    authorize_url: str
    scopes: Mapping[str, str]
    consent_scope: str


PROVIDERS: Mapping[str, Provider] = {
    "google": Provider(
        token_url="https://oauth2.googleapis.com/token",  # noqa: S106  # an address, no secret
        device_url="https://oauth2.googleapis.com/device/code",
        authorize_url="https://accounts.google.com/o/oauth2/v2/auth",
        # A refresh token has the scope of its consent already.
        scopes={"jwt_bearer": "https://mail.google.com/"},
        consent_scope="https://mail.google.com/",
    ),
    "microsoft": Provider(
        token_url="https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",  # noqa: S106
        device_url="https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode",
        authorize_url="https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
        scopes={
            "refresh_token": "https://outlook.office.com/SMTP.Send offline_access",
            "client_credentials": "https://outlook.office365.com/.default",
        },
        consent_scope="https://outlook.office.com/SMTP.Send offline_access",
    ),
}
