"""A server that takes content of any size: keeps none of it, and answers with its size and checksum.

Runs as a program of its own, `python -m tests.acceptance.content_sink [CERTIFICATE KEY]`, prints its
port, and ends with its standard input. What it counts is the wire: content with its second dots, without
the final one. It knows as much of SMTP as one session at a time needs, and no more.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
import zlib

READ_SIZE = 1 << 18
END = b"\r\n.\r\n"
EXTENSIONS = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 0\r\n"


class Session:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.unread = b""

    def run(self) -> None:
        self.connection.sendall(b"220 sink\r\n")
        while command := self.line().upper():
            if command.startswith(b"EHLO"):
                self.connection.sendall(EXTENSIONS)
            elif command.startswith(b"DATA"):
                self.connection.sendall(b"354 go on\r\n")
                size, checksum = self.content()
                self.connection.sendall(b"250 2.0.0 %d %08x\r\n" % (size, checksum))
            else:
                self.connection.sendall(b"250 2.0.0 ok\r\n")

    def more(self) -> bool:
        data = self.connection.recv(READ_SIZE)
        self.unread += data
        return bool(data)

    def line(self) -> bytes:
        while b"\n" not in self.unread:
            if not self.more():
                return b""
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def content(self) -> tuple[int, int]:
        """Bytes and CRC-32 up to the final dot; nobody sends on before the answer, so it comes last."""
        size = checksum = 0
        while not self.unread.endswith(END):
            rest = self.unread[-len(END) :]
            done = self.unread[: -len(END)]
            size, checksum = size + len(done), zlib.crc32(done, checksum)
            self.unread = rest
            if not self.more():
                return size, 0
        done, self.unread = self.unread[: -len(END) + 2], b""
        return size + len(done), zlib.crc32(done, checksum)


def serve(listener: socket.socket, context: ssl.SSLContext | None) -> None:
    while True:
        connection, _ = listener.accept()
        try:
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            Session(connection).run()
        except OSError:
            pass
        finally:
            connection.close()


def main() -> None:
    context = None
    if len(sys.argv) > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1], sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=serve, args=(listener, context), daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
