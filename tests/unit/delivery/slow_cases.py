"""Cases in which servers take time, for the driver that has a clock for it: with the seconds that pass."""

from tests.unit.delivery.cases import Case

SLOW_CASES = {
    "a server that does not greet leaves time for the next": (
        Case(
            servers=[["greeting silent"], []],
            told=["server 2 attempt 1 instead of 1"],
            opened=[1, 1],
            taken=[0, 1],
            deadline=4.0,
        ),
        2.0,
    ),
    "and is passed over by the next message": (
        Case(
            servers=[["greeting silent"], []],
            told=["server 2 attempt 1 instead of 1", "server 2 attempt 1 again instead of 1"],
            opened=[1, 1],
            taken=[0, 2],
            deadline=4.0,
        ),
        2.0,
    ),
    "so does one that falls silent before the content": (
        Case(
            servers=[["mail silent"], []],
            told=["server 2 attempt 1 instead of 1"],
            opened=[1, 1],
            taken=[0, 1],
            deadline=4.0,
        ),
        2.0,
    ),
    "a server has a time limit of its own": (
        Case(
            servers=[["content silent"], []],
            told=["server 2 attempt 1 instead of 1"],
            opened=[1, 1],
            taken=[0, 1],
            total=3.0,
        ),
        3.0,
    ),
    "with the time for the send all is over": (
        Case(
            servers=[["content silent"], []],
            told=["DeadlineExceeded content"],
            opened=[1, 0],
            taken=[0, 0],
            attempts=3,
            deadline=4.0,
        ),
        4.0,
    ),
    "a share that is used up is no deadline": (
        Case(
            servers=[["greeting silent"], ["greeting 554"]],
            told=["ConnectTimeout greeting after 1"],
            opened=[1, 1],
            taken=[0, 0],
            deadline=4.0,
        ),
        2.0,
    ),
    "the deadline is, where nobody is left": (
        Case(
            servers=[["greeting silent"]],
            told=["DeadlineExceeded greeting"],
            opened=[1],
            taken=[0],
            deadline=4.0,
        ),
        4.0,
    ),
}
