"""A TCP relay on loopback that counts round trips, delays bytes and can break connections at will.

A round trip is what the client sent since the last answer, followed by bytes of the server: a change of
direction, no clock involved. The greeting alone is none, since the server speaks first. The count is exact
for a client that waits for its answers; where both sides speak at once (the session tickets after a TLS 1.3
handshake) order is chance, so compare the count before and after on a session that is already open.

It runs in a process of its own: it takes no time from what is measured, and a test may fork without also
copying the relay's sockets. It does not understand SMTP.

    with Relay(("127.0.0.1", 25), delay=0.01) as relay:
        ...
        assert relay.connections[0].round_trips == 2
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

CHUNK = 256 * 1024  # bytes read at once: a whole flight of commands, so that it is forwarded as one


@dataclass(slots=True)
class Connection:
    """What has passed on one connection so far."""

    round_trips: int = 0
    client_bytes: int = 0
    server_bytes: int = 0
    is_open: bool = True


class Relay:
    """Forwards to `target`, with `delay` seconds each way.

    `cut_before` is for the answer that never arrives (clear text only): a connection on which the server
    sends these bytes is ended instead. With b"queued as", Postfix has taken the message and the client is
    not told.
    """

    def __init__(self, target: tuple[str, int], *, delay: float = 0.0, cut_before: bytes = b"") -> None:
        settings = {"target": target, "delay": delay, "cut_before": cut_before.decode("latin-1")}
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, json.dumps(settings)],
            stdin=subprocess.PIPE,  # its end tells the relay to end: also if this process is killed
            stdout=subprocess.PIPE,
        )
        self.host = "127.0.0.1"
        self.port: int = self._read_answer()

    @property
    def address(self) -> tuple[str, int]:
        return (self.host, self.port)

    @property
    def connections(self) -> list[Connection]:
        """A record of every connection so far, in the order in which they came."""
        return [Connection(**record) for record in self._ask("report")]

    @property
    def round_trips(self) -> int:
        """The sum over all connections."""
        return sum(connection.round_trips for connection in self.connections)

    def cut(self, *, reset: bool = False) -> None:
        """End every open connection, by end-of-file or by a TCP reset."""
        self._ask("reset" if reset else "cut")

    def refuse(self) -> None:
        """Stop listening: new connections are refused from now on."""
        self._ask("refuse")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, verb: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(verb.encode() + b"\n")
        self._process.stdin.flush()
        return self._read_answer()

    def _read_answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the relay has ended with {self._process.wait(5)}")
        return json.loads(line)


# ---- the process on the other side of the pipes ----

Road = asyncio.Queue[tuple[float, bytes]]  # when a piece is due, and the piece


@dataclass(slots=True)
class Pair:
    """The two sockets of one connection; `asking` says that the client spoke last."""

    record: Connection
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    asking: bool = False

    def end(self, *, reset: bool) -> None:
        self.record.is_open = False
        for writer in self.writers:
            raw: socket.socket = writer.get_extra_info("socket")
            if reset:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()


class Switchboard:
    def __init__(self, target: tuple[str, int], delay: float, cut_before: str) -> None:
        self._target = target
        self._delay = delay
        self._cut_before = cut_before.encode("latin-1")
        self._pairs: list[Pair] = []

    async def run(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK)
        say(server.sockets[0].getsockname()[1])
        commands = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
        )
        while verb := (await commands.readline()).decode().strip():
            if verb == "refuse":
                server.close()
            elif verb in ("cut", "reset"):
                for pair in self._pairs:
                    if pair.record.is_open:
                        pair.end(reset=verb == "reset")
                await asyncio.sleep(0)  # a transport closes its socket in the next round of the loop
            say([asdict(pair.record) for pair in self._pairs])
        os._exit(0)  # the kernel closes what is open; tasks need not be told

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        pair = Pair(Connection(), [to_client])
        self._pairs.append(pair)
        try:
            server, to_server = await asyncio.open_connection(*self._target, limit=CHUNK)
            pair.writers.append(to_server)
            async with asyncio.TaskGroup() as tasks:
                for source, sink, from_client in ((client, to_server, True), (server, to_client, False)):
                    road: Road = asyncio.Queue(maxsize=64)
                    tasks.create_task(self._take(source, road, pair, from_client=from_client))
                    tasks.create_task(self._deliver(road, sink))
        except* OSError:
            pass  # one side broke; the other shall see an end, too
        finally:
            pair.end(reset=False)

    async def _take(
        self,
        source: asyncio.StreamReader,
        road: Road,
        pair: Pair,
        *,
        from_client: bool,
    ) -> None:
        """Read until the end, count, and put everything on its way; an empty piece is the end."""
        data = b"-"
        while data:
            data = await source.read(CHUNK)
            if from_client:
                pair.record.client_bytes += len(data)
                pair.asking = pair.asking or bool(data)
            elif data:
                pair.record.server_bytes += len(data)
                pair.record.round_trips += pair.asking
                pair.asking = False
                if self._cut_before and self._cut_before in data:
                    pair.end(reset=False)
                    return
            await road.put((asyncio.get_running_loop().time() + self._delay, data))

    async def _deliver(self, road: Road, sink: asyncio.StreamWriter) -> None:
        data = b"-"
        while data:
            due, data = await road.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            sink.write(data)
            await sink.drain()
        if not sink.is_closing():
            sink.write_eof()


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    asyncio.run(Switchboard(**json.loads(sys.argv[1])).run())
