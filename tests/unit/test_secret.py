"""mailbridge.secret: the value comes out of `reveal()` and of nothing else."""

import copy
import json
import logging
import pickle
import traceback
from dataclasses import dataclass

import pytest

from mailbridge.secret import MASK, Secret, clear_locals, clears_locals

VALUE = "sentinel-pa%ss{w}ord"


@pytest.mark.parametrize(
    "shown",
    [
        repr,
        str,
        format,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>30}",
        lambda secret: f"{secret:>20}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - as logging does
        lambda secret: "{0} {0!r} {0!s} {0!a}".format(secret),  # noqa: UP032
        lambda secret: repr([secret, {"password": secret}]),
        lambda secret: repr(pickle.dumps(secret)),
        lambda secret: repr(pickle.dumps({"config": secret})),
        lambda secret: str(pickle.loads(pickle.dumps(secret)).reveal()),
    ],
)
def test_no_form_shows_the_value(shown: object) -> None:
    text = shown(Secret(VALUE))  # type: ignore[operator]
    assert MASK in text
    assert "sentinel" not in text


def test_reveal_gives_the_value() -> None:
    assert Secret(VALUE).reveal() == VALUE


def test_it_has_no_dictionary_and_is_not_json() -> None:
    with pytest.raises(TypeError):
        vars(Secret(VALUE))
    with pytest.raises(TypeError):
        json.dumps(Secret(VALUE))


def test_tracebacks_with_locals_and_logs_are_masked(caplog: pytest.LogCaptureFixture) -> None:
    @dataclass
    class Config:
        password: Secret

    config = Config(Secret(VALUE))
    logging.getLogger("x").warning("config %s %r", config, config.password)
    with pytest.raises(ValueError, match="x") as caught:
        _fail(config.password)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "sentinel" not in "".join(shown.format()) + caplog.text + repr(config)


def _fail(password: Secret) -> None:
    raise ValueError("x")


def test_equal_values_are_equal_and_hash_alike() -> None:
    assert Secret("a") == Secret("a")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("ü") == Secret("ü")
    assert Secret("\udcff") == Secret("\udcff") != Secret("?")


def test_truth_is_that_of_the_value() -> None:
    assert Secret("a")
    assert not Secret("")


def test_copies_in_the_process_keep_the_value() -> None:
    secret = Secret(VALUE)
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"password": secret})["password"].reveal() == VALUE


def test_locals_of_an_error_and_its_causes_are_cleared_and_others_are_not() -> None:
    def lower() -> None:
        secret = "hunter2"  # noqa: F841  # looked for in the frame
        raise LookupError

    def upper() -> None:
        secret = "hunter2"  # noqa: F841  # looked for in the frame
        try:
            lower()
        except LookupError:
            raise ValueError from None

    def failing() -> None:
        precious = "of somebody else"  # noqa: F841  # looked for in the frame
        raise OSError

    def locals_of(error: BaseException) -> str:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True).stack
        return "".join(str(frame.locals) for frame in shown if frame.name in ("lower", "upper", "failing"))

    shown = []
    try:
        failing()
    except OSError as before:
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # our own
            upper()
        clear_locals(caught.value, outer=before)
        shown = [locals_of(error) for error in (caught.value, caught.value.__context__, before) if error]
    assert ["hunter2" in text for text in shown] == [False, False, False]
    assert ["of somebody else" in text for text in shown] == [False, False, True]


def test_what_clears_locals_leaves_none_in_its_frames_and_none_of_its_callers_are_touched() -> None:
    @clears_locals
    def reads(content: str) -> int:
        return deeper(content)

    def deeper(content: str) -> int:
        try:
            return int(content)
        except ValueError as error:
            raise RuntimeError("no number") from error

    def calls(kept: str) -> int:
        return reads(kept.upper())

    assert reads("7") == 7
    assert reads.__name__ == "reads"
    with pytest.raises(RuntimeError) as caught:
        calls("kept")
    variables = {
        frame.f_code.co_name: dict(frame.f_locals)
        for frame, _ in traceback.walk_tb(caught.value.__traceback__)
    }
    assert variables["calls"]["kept"] == "kept"
    assert variables["reads"] == variables["deeper"] == {}
    assert "KEPT" not in repr(variables)
