"""Small applications that real application servers run in the tests.

How to reach the mail server stands in the environment, as for the other programs of these tests.
"""

from __future__ import annotations

import json
import os

from mailbridge import SendResult, SMTPConfig, mailer_for
from tests.acceptance.sending import envelope, message

CONFIG = SMTPConfig.from_mapping(json.loads(os.environ["MAIL_OPTIONS"]))
FIRST, LAST = 1, 99  # what the parent of all workers sends: at import, and when all is over


def send(number: int) -> SendResult:
    return mailer_for(CONFIG).send(message(number), envelope=envelope())
