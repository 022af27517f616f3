"""What a program begins with that measures the memory of its own sends; see `told_by` of test_memory."""

COMMON = """
import gc, json, os, sys, tracemalloc
from email.message import EmailMessage
from mailbridge import Envelope, Mailer, MailbridgeError, Message, SMTPConfig, close_all, mailer_for

GIVEN = json.loads(sys.argv[1])
SENDER, RECIPIENT = "sender@example.test", "r@elsewhere.test"
ENVELOPE = Envelope(SENDER, [RECIPIENT])

def configuration(**options):
    return SMTPConfig(**{"host": "127.0.0.1", "timeout": 20, "security": "none", **GIVEN, **options})

def message(number=0):
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = SENDER, RECIPIENT, f"number {number}"
    mail.set_content(f"hello {number}")
    return mail

def resident():
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def blocks():
    gc.collect()
    return sys.getallocatedblocks()

def tell(**facts):
    print(json.dumps(facts))
"""
