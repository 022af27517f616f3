"""Content far larger than the memory that it takes to send it.

The sender is a process of its own, and so is the server, which answers with the checksum of what it
got. What is measured is the peak of the resident size above what the process had after a small mail.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.measured import COMMON
from tests.servers.certificates import Certificates

MOST_BYTES = 30_000_000
HEAD = b"Message-ID: <large@example.test>\r\n\r\n"
# A line end at many places of a piece, and a dot behind some of them. Its lines end as files of Unix do.
BLOCK = b"".join(b"." * (number % 7 == 0) + b"x" * (number % 199) + b"\n" for number in range(9_973))
WIRE_BLOCK = (b"\n" + BLOCK).replace(b"\n.", b"\n..")[1:].replace(b"\n", b"\r\n")

LARGE = """
import pathlib
path, beginning, blocks, way = (GIVEN.pop(name) for name in ("path", "beginning", "blocks", "way"))

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def pieces():
    head, block = (pathlib.Path(name).read_bytes() for name in beginning)
    yield head
    for _ in range(blocks):
        yield block

def deleted_files():
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return [name for name in map(os.path.realpath, links) if "deleted" in name]

mailer = Mailer(configuration())
mailer.send(message())
if way == "path":
    content = pathlib.Path(path)
elif way == "file":
    content = open(path, "rb")
else:
    content = pieces()
gc.collect()
with open("/proc/self/clear_refs", "w") as clear:
    clear.write("5")  # the peak begins anew (proc(5))
before = status("VmRSS")
result = mailer.send(content, envelope=ENVELOPE)
tell(
    grown=status("VmHWM") - before,
    size=result.message_size,
    message_id=result.message_id,
    response=str(result.response),
    kept=deleted_files(),
)
"""

StartSink = Callable[..., int]


@pytest.fixture
def content_sink() -> Iterator[StartSink]:
    with ExitStack() as stack:

        def start(*certificate: Path) -> int:
            command = [sys.executable, "-m", "tests.acceptance.content_sink", *map(str, certificate)]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            assert process.stdout is not None
            return int(process.stdout.readline())

        yield start


def wire_checksum(blocks: int) -> tuple[int, int]:
    size, checksum = len(HEAD), zlib.crc32(HEAD)
    for _ in range(blocks):
        size, checksum = size + len(WIRE_BLOCK), zlib.crc32(WIRE_BLOCK, checksum)
    return size, checksum


def check(tmp_path: Path, way: str, megabytes: int, **options: Any) -> None:
    blocks = megabytes * 1_000_000 // len(BLOCK) + 1
    path, head, block = (tmp_path / name for name in ("large.eml", "head", "block"))
    head.write_bytes(HEAD)
    block.write_bytes(BLOCK)
    if way != "iterator":
        with path.open("wb") as file:
            file.write(HEAD)
            file.writelines(BLOCK for _ in range(blocks))
    given = {"path": path, "beginning": [head, block], "blocks": blocks, "way": way, **options}
    command = [sys.executable, "-W", "error", "-c", COMMON + LARGE, json.dumps(given, default=str)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    path.unlink(missing_ok=True)
    size, checksum = wire_checksum(blocks)
    assert told["response"].endswith(f"{size} {checksum:08x}")
    assert told["size"] == len(HEAD) + blocks * (len(BLOCK) + BLOCK.count(b"\n")) > megabytes * 1_000_000
    assert told["message_id"] == "<large@example.test>"
    assert told["kept"] == []
    assert told["grown"] < MOST_BYTES, told


@pytest.mark.parametrize(("way", "security"), [("file", "none"), ("iterator", "none"), ("path", "tls")])
def test_twice_the_memory_that_it_may_take(
    content_sink: StartSink, certificates: Certificates, tmp_path: Path, way: str, security: str
) -> None:
    good = certificates.good
    port = content_sink(*([good.cert_file, good.key_file] if security == "tls" else []))
    check(
        tmp_path,
        way,
        2 * MOST_BYTES // 1_000_000,
        port=port,
        security=security,
        tls={"ca_file": certificates.ca_file},
    )


def test_ten_times_the_memory_that_it_may_take(content_sink: StartSink, tmp_path: Path) -> None:
    """This way alone, for the time that it takes; the others differ in nothing that grows."""
    check(tmp_path, "path", 10 * MOST_BYTES // 1_000_000, port=content_sink())
