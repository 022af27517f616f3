"""mailbridge beside other clients, on one server: round trips, time and CPU. Run it by `make bench`.

Relations are the result, not times: those depend on the machine, and on the way to the server, which a relay
makes 10 ms long here. Round trips are counted by that relay, on the wire.

`python -m benchmarks.calls` counts the Python calls of one send, which are the same on every machine.
"""
