"""The server's own name for a message, read from its answer to the content.

No standard says where it stands; these are the forms of the servers in wide use. An answer in
another form gives None: a wrong name would be worse than none.
"""

import re

_FORMS = (
    re.compile(r"queued as ([\w.-]+)"),  # Postfix, Haraka, Stalwart
    re.compile(r"\bid=([\w.-]+)"),  # Exim
    re.compile(r"(?<![\w.-])([\w.-]++) Message accepted for delivery"),  # Sendmail, OpenSMTPD
    re.compile(r"\[InternalId=(\d+)"),  # Exchange
    re.compile(r"\bOK\s+\d{10}\s+([\w.-]+) - gsmtp"),  # Gmail
    re.compile(r"\bOk ([0-9a-f]{16}-[0-9a-f-]+)"),  # Amazon SES
)


def queue_id(text: str) -> str | None:
    """The id in the text of the final reply, or None."""
    for form in _FORMS:
        if found := form.search(text):
            return found[1].rstrip(".")
    return None
