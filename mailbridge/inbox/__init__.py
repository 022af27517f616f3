"""A development inbox: keeps what a receiving server was sent, and shows it on a page and as JSON.

For development and tests. It is no mail store: who can reach its page can read and delete everything.
"""

from mailbridge.inbox.mail import Part, Reading, read
from mailbridge.inbox.store import MOST_BYTES, MOST_MAILS, Inbox, ReceivedMail

__all__ = ["MOST_BYTES", "MOST_MAILS", "Inbox", "Part", "Reading", "ReceivedMail", "read"]
