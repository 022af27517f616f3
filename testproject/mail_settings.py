"""The mail configuration that the Django site and the Flask app share: options of mailbridge.

MAILBRIDGE_URL in the environment names the server, so that no password stands in the project. The
default is a server for development on this machine, such as `mailbridge serve`. MAILBRIDGE_CA_FILE names
the authority to trust instead of the system's, if there is one.
"""

import os

SENDER = "Corner Shop <shop@example.com>"
INBOX = "inbox@example.com"

OPTIONS = {
    "url": os.environ.get("MAILBRIDGE_URL", "smtp://127.0.0.1:1025/?security=none"),
    "tls": {"ca_file": os.environ.get("MAILBRIDGE_CA_FILE")},
    # Somebody waits for the page, so do not wait long for a server that does not answer.
    "timeouts": {"connect": 10, "greeting": 10, "command": 20},
    "pool": {"max_size": 3},
}
