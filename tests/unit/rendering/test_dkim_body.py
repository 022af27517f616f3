"""The hash of a body is that of dkimpy, wherever the body is cut."""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailbridge.rendering.dkim import BodyHash
from mailbridge.rendering.lines import canonical

KINDS = ("relaxed", "simple")
LINES = st.lists(
    st.sampled_from([b"", b" ", b"\t", b" \t ", b"a", b"a  b", b" a\tb ", b".", b"\xc3\xbc"])
).map(b"\r\n".join)


def value(kind: str, pieces: Iterable[bytes]) -> bytes:
    found = BodyHash(relaxed=kind == "relaxed")
    for piece in pieces:
        found.feed(piece)
    return found.value()


def of(content: bytes) -> bytes:
    return base64.b64encode(hashlib.sha256(content).digest())


@pytest.mark.parametrize(
    ("body", "relaxed", "simple"),
    [
        # RFC 6376 section 3.4.5, and sections 3.4.3 and 3.4.4 for empty bodies.
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n", b" C \r\nD \t E\r\n"),
        (b"", b"", b"\r\n"),
        (b"\r\n", b"", b"\r\n"),
        (b"\r\n\r\n", b"", b"\r\n"),
        (b" \r\n", b"", b" \r\n"),
        (b"\r\na\r\n", b"\r\na\r\n", b"\r\na\r\n"),
    ],
)
def test_examples(body: bytes, relaxed: bytes, simple: bytes) -> None:
    assert value("relaxed", [body]) == of(relaxed)
    assert value("simple", [body]) == of(simple)


@pytest.mark.needs("dkim")
@given(body=LINES.map(canonical), cuts=st.lists(st.integers(0, 60)), kind=st.sampled_from(KINDS))
def test_as_dkimpy_has_it_in_whatever_pieces(body: bytes, cuts: list[int], kind: str) -> None:
    dkim: Any = pytest.importorskip("dkim")
    policy = dkim.CanonicalizationPolicy.from_c_value(f"relaxed/{kind}".encode())
    borders = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[start:end] for start, end in itertools.pairwise(borders)]
    assert value(kind, pieces) == of(policy.canonicalize_body(body))


def test_blanks_take_linear_time() -> None:
    start = time.process_time()
    assert value("relaxed", [b" " * 5_000_000 + b"x\r\n"]) == of(b" x\r\n")
    assert time.process_time() - start < 5  # dkimpy: hours
