"""What a person can do about an error, from the error and the server's words.

A table, so that one more provider's answer is one more row. Says nothing where it knows nothing.
"""

import re

from mailbridge.config.smtp_config import SMTPConfig
from mailbridge.errors import (
    AuthenticationFailed,
    CertificateRejected,
    GreetingRefused,
    MailbridgeError,
    ReplyTimeout,
)

# Their credentials are access tokens: what is said of passwords would lead astray.
_TOKEN_MECHANISMS = ("XOAUTH2", "OAUTHBEARER")
_CHECK_LOGIN = "Check username and password; some providers want an app password or an API key here."
# (stage, pattern over "code text", hint); the first that fits counts. The stage "token login" is a login with
# an access token; there the decoded challenge follows the text.
_ROWS: tuple[tuple[str, re.Pattern[str], str], ...] = tuple(
    (stage, re.compile(pattern, re.IGNORECASE), hint)
    for stage, pattern, hint in (
        (
            "token login",
            r"5\.7\.139",
            "Microsoft 365 has switched authenticated SMTP off for this mailbox or tenant, for tokens too; "
            "an administrator can enable it for the mailbox.",
        ),
        (
            "token login",
            r"^535 5\.7\.3",
            "Microsoft 365 takes no such token: username must be the mailbox, and the scope SMTP.Send. "
            "An application needs the permission SMTP.SendAsApp with an administrator's consent, and its "
            "service principal registered in Exchange with rights to the mailbox.",
        ),
        (
            "token login",
            r"google|gsmtp",
            "Google wants a token with the scope https://mail.google.com/, of the very account in username.",
        ),
        (
            "token login",
            r"^535",
            "The server does not accept this token: check that it is for the mailbox in username, its scope, "
            "and that it was not revoked.",
        ),
        (
            "auth",
            r"^\d{3} 5\.7\.30\b.*basic authentication",
            "Microsoft takes no passwords here any more: use OAuth2.",
        ),
        (
            "auth",
            r"5\.7\.139",
            "Microsoft 365 has switched password login off for this tenant or mailbox; an administrator can "
            "enable authenticated SMTP for the mailbox, or use OAuth2.",
        ),
        (
            "auth",
            r"^535 5\.7\.3",
            "Microsoft 365 does not accept this login; check user, password and mailbox rights.",
        ),
        (
            "auth",
            r"^\d{3} 5\.7\.[89]\b.*(google|gsmtp)",
            "Google wants an app password (two-step verification must be on), or OAuth2.",
        ),
        (
            "auth",
            r"^454 4\.7\.0.*too many",
            "The server limits logins; wait, and let the pool keep its connections.",
        ),
        ("auth", r"^535", _CHECK_LOGIN),
        (
            "auth",
            r"^53[048]",
            "The server wants another mechanism or encryption; see the option auth, and security.",
        ),
        ("mail_from", r"^530.*starttls", "The server wants TLS first: use security='starttls'."),
        (
            "mail_from",
            r"^530|authentication required",
            "The server wants a login: set username and password.",
        ),
        (
            "mail_from",
            r"^55[023].*(not owned|not allowed|sender|verif)",
            "This account may not send as this address.",
        ),
        ("mail_from", r"^552|5\.3\.4", "The message is larger than the server takes."),
        (
            "rcpt_to",
            r"relay|5\.7\.1\b",
            "The server does not relay for strangers: log in, or ask its administrator.",
        ),
        (
            "ehlo",
            r"^503.*proxy negotiation",  # Exim's hosts_proxy
            "The server expects a PROXY header: set proxy_protocol, or reach it through its load balancer.",
        ),
        ("ehlo", r"\b(lhlo|lmtp)\b", "The server speaks LMTP: set protocol='lmtp'."),
        ("ehlo", r"^50[02]", "The server does not know the command. If it speaks LMTP, set protocol='lmtp'."),
        (
            "ehlo",
            r"^50[14]",
            "The server dislikes the EHLO name; set local_hostname to this machine's full name.",
        ),
    )
)


def hint_for(
    error: MailbridgeError, port: int, *, has_sent_header: bool = False, login_hint: str = ""
) -> str:
    """One sentence that names the remedy, or an empty string.

    `login_hint`: what is known of logins at this service, for a refusal that says nothing of its own.
    `has_sent_header`: the connection began with a PROXY header, and nothing shows yet that the server
    understood it. One that wants none mostly says something that sounds like another problem.
    """
    if has_sent_header and _may_be_about_header(error):
        return "A PROXY header went out first (option proxy_protocol): the server may want none, or another."
    if error.hint:
        return error.hint
    if isinstance(error, ReplyTimeout) and error.stage == "greeting":
        return (
            f"Port {port} may speak TLS from the start: try security='tls'. "
            "Or the server waits for a PROXY header: then set proxy_protocol."
            if port != 25
            else "A firewall or a slow filter may stand before the server; the option is timeouts.greeting."
        )
    if error.reply is None:
        return ""
    said, at = str(error.reply), error.stage
    if isinstance(error, AuthenticationFailed) and error.mechanism in _TOKEN_MECHANISMS:
        said, at = f"{said} {error.challenge}", "token login" if error.reply.code == 535 else at
    for stage, pattern, hint in _ROWS:
        if stage == at and pattern.search(said):
            return login_hint if login_hint and hint is _CHECK_LOGIN else hint
    if isinstance(error, GreetingRefused):
        return "The server does not talk to this address or has too many connections; its words tell which."
    return ""


def _may_be_about_header(error: MailbridgeError) -> bool:
    return error.stage in ("greeting", "ehlo", "tls") and not isinstance(error, CertificateRejected)


def complete(error: BaseException, config: SMTPConfig) -> None:
    """Put the server's name and a hint on an error that does not have them yet."""
    if isinstance(error, MailbridgeError):
        error.server = error.server or config.server
        # After STARTTLS was agreed the server has understood all that came before.
        is_new = config.security == "tls" or error.stage != "tls"
        has_sent_header = config.proxy_protocol is not None and is_new
        login_hint = config.service.hint if config.service is not None else ""
        error.hint = hint_for(error, config.port, has_sent_header=has_sent_header, login_hint=login_hint)
