"""A receiving SMTP server, with PROXY protocol, for development, tests and incoming mail (extra `server`)."""

from mailbridge.proxy_protocol.tlvs import ProxySsl
from mailbridge.server.reject import Reject
from mailbridge.server.server import MailServer
from mailbridge.server.session import ProxyTlvs, ReceivedEnvelope, Session, TLSSession

__all__ = ["MailServer", "ProxySsl", "ProxyTlvs", "ReceivedEnvelope", "Reject", "Session", "TLSSession"]
