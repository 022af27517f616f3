"""Real mail servers on free loopback ports, each with a configuration folder of its own.

For tests, benchmarks and the demo. A server is started when it is first asked for and stopped by its own
process id. This package does not import mailbridge: what it observes about a client must not depend on the
client.
"""
