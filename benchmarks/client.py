"""The process of one client: gets ready, sends when told to, says what it took.

Over standard input and output, a line of JSON each: it says {"ready": true}, or {"missing": "library"}; is
told to go; says wall and cpu; and closes its connections only when its input ends, so that the parent can
count in peace.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

from benchmarks import peers
from benchmarks.job import Job, Measured


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    peer: peers.Peer = getattr(peers, job.peer)
    try:
        with peer(job) as send:
            send()  # imports, caches, and for those that keep it, the connection
            say({"ready": True})
            sys.stdin.readline()
            say(asdict(measured(send, job.messages)))
            sys.stdin.read()
    except ModuleNotFoundError as error:
        say({"missing": error.name})


def measured(send: peers.Send, messages: int) -> Measured:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(messages):
        send()
    return Measured(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


def say(facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
