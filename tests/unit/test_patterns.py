"""No regular expression of the project takes more than linear time, whatever is fed to it.

Patterns are found by looking: compiled ones in the modules' globals, and literals in calls of `re`. Each is
run on long repetitions of what it consists of, in the ways in which the project uses it.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from re import _constants as constants  # type: ignore[attr-defined]  # how the library takes a pattern apart
from re import _parser as parser  # type: ignore[attr-defined]

import pytest

import mailbridge

ROOT = Path(mailbridge.__file__).parent.parent
PACKAGES = ("mailbridge", "mailbridge_django", "mailbridge_flask")
METHODS = ("search", "match", "fullmatch")
#: `findall`, `sub` and `split` go on where one search has ended.
AS_SEARCH = {"sub", "subn", "findall", "finditer", "split"}

SHORT = 20  # exponential time shows here: a million steps, where a linear pattern takes twenty
SIZES = (1500, 3000, 6000)
# Seconds. What is faster is not measured: the clock and the machine would decide.
NOTHING = 0.002
# Four times the input may take so many times as long; 4 is linear, 16 is quadratic.
GROWTH = 9.0


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text("utf-8"))


#: Functions that are handed a pattern, and what they call on it.
HANDED_TO = {"take": "match"}


def uses_by_name() -> dict[str, dict[str, set[str]]]:
    """Which methods are called on a name, by module: {"mailbridge.urls": {"_LABEL": {"fullmatch"}}}."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path, tree in sources():
        parts = path.relative_to(ROOT).with_suffix("").parts
        here = found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in {*METHODS, *AS_SEARCH}:
                name = node.value
                if isinstance(name, ast.Name | ast.Attribute):
                    here[name.id if isinstance(name, ast.Name) else name.attr].add(node.attr)
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if is_call and node.func.attr in HANDED_TO:
                for name in (each for each in node.args if isinstance(each, ast.Name)):
                    here[name.id].add(HANDED_TO[node.func.attr])
    return found


def patterns_in(value: object) -> Iterator[re.Pattern[str] | re.Pattern[bytes]]:
    kind = type(value)  # not isinstance, which would wake Django's lazy objects
    if kind is re.Pattern:
        yield value  # type: ignore[misc]
    elif issubclass(kind, dict):
        yield from patterns_in(tuple(value.items()))  # type: ignore[attr-defined]
    elif issubclass(kind, tuple | list | set | frozenset):
        for each in value:  # type: ignore[attr-defined]
            yield from patterns_in(each)


def compiled() -> Iterator[tuple[str, re.Pattern[str] | re.Pattern[bytes], tuple[str, ...]]]:
    uses = uses_by_name()
    for package in PACKAGES:
        for info in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if info.name.endswith("__main__"):
                continue
            try:
                module = importlib.import_module(info.name)
            except ImportError:  # its library is not here; the environment with all extras looks at it
                continue
            for name, value in vars(module).items():
                for number, pattern in enumerate(patterns_in(value)):
                    ways = uses[info.name][name] if type(value) is re.Pattern else set()
                    label = f"{info.name}.{name}" + (f"[{number}]" if value is not pattern else "")
                    yield label, pattern, tuple(sorted(ways)) or METHODS


def literal() -> Iterator[tuple[str, re.Pattern[str] | re.Pattern[bytes], tuple[str, ...]]]:
    """Patterns that stand as text in a call, `re.sub("…", …)`."""
    for path, tree in sources():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            owner, text = node.func.value, node.args[0]
            is_of_re = isinstance(owner, ast.Name) and owner.id == "re" and node.func.attr != "compile"
            if is_of_re and isinstance(text, ast.Constant) and isinstance(text.value, str | bytes):
                yield f"{path.name}:{node.lineno}", re.compile(text.value), (node.func.attr,)


def parts_of(pattern: re.Pattern[str] | re.Pattern[bytes]) -> tuple[set[str], set[str]]:
    """Characters that the pattern knows, one of each class, and its runs of literal characters."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    characters: set[str] = set()
    runs: set[str] = set()

    def walk(tree: Iterable[tuple[object, object]]) -> None:
        run = ""
        for kind, argument in tree:
            if kind is constants.LITERAL:
                run += chr(argument)  # type: ignore[call-overload]
                characters.add(run[-1])
                continue
            runs.add(run)
            run = ""
            if kind is constants.IN:
                characters.update(members(argument))  # type: ignore[arg-type]
            for each in argument if isinstance(argument, tuple | list) else ():
                if isinstance(each, parser.SubPattern):
                    walk(each)
                elif isinstance(each, list):
                    for branch in each:
                        if isinstance(branch, parser.SubPattern):
                            walk(branch)
            if isinstance(argument, parser.SubPattern):
                walk(argument)
        runs.add(run)

    def sample(tree: Iterable[tuple[object, object]]) -> Iterator[str]:
        """A short text that matches, cut where the pattern's parts end."""
        whole = ""
        for kind, argument in tree:
            if kind is constants.LITERAL:
                whole += chr(argument)  # type: ignore[call-overload]
            elif kind is constants.IN:
                whole += next(members(argument), "0")  # type: ignore[arg-type]
            else:
                parts = [argument, *(argument if isinstance(argument, tuple | list) else ())]
                branches = [each for part in parts for each in (part if isinstance(part, list) else [part])]
                inner = next((each for each in branches if isinstance(each, parser.SubPattern)), ())
                whole += max(sample(inner), key=len, default="")
            yield whole

    runs.update(sample(parser.parse(text)))
    walk(parser.parse(text, pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else 0))
    return characters | set("a0 \t.-=!"), runs - {""}


def members(items: Iterable[tuple[object, object]]) -> Iterator[str]:
    for kind, argument in items:
        if kind is constants.LITERAL:
            yield chr(argument)  # type: ignore[call-overload]
        elif kind is constants.RANGE:
            low, high = argument  # type: ignore[misc]
            yield from (chr(low), chr(high))


def shapes(pattern: re.Pattern[str] | re.Pattern[bytes]) -> Iterator[tuple[str, str, str]]:
    """What comes first, what is repeated, what comes last."""
    characters, runs = parts_of(pattern)
    fit = sorted(c for c in characters if ord(c) < 0x80)
    some = fit[:: max(1, len(fit) // 12)]
    for pump in [
        *fit,
        *runs,
        *(run + c for run in runs for c in some[:4]),
        *(a + b for a in some for b in some[:5]),
    ]:
        for last in ("", "\x00", "!"):
            yield "", pump, last
    for run in runs:
        for pump in some:
            yield run, pump, "\x00"


def seconds(call: Callable[[str | bytes], object], text: str | bytes) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        call(text)
        best = min(best, time.process_time() - began)
        if best < NOTHING:
            break
    return best


def slow_shapes(
    pattern: re.Pattern[str] | re.Pattern[bytes], ways: Iterable[str]
) -> Iterator[tuple[str, str, list[float]]]:
    for way in dict.fromkeys("search" if way in AS_SEARCH else way for way in ways):
        call = getattr(pattern, way)
        for first, pump, last in shapes(pattern):

            def text(size: int, first: str = first, pump: str = pump, last: str = last) -> str | bytes:
                whole = first + pump * (size // len(pump) + 1) + last
                return whole if isinstance(pattern.pattern, str) else whole.encode("latin-1")

            if seconds(call, text(SHORT)) > NOTHING:
                yield way, f"{first}{pump}*{SHORT}{last}", []
                continue
            times = [seconds(call, text(SIZES[-1]))]
            if times[0] > NOTHING:
                times = [*(seconds(call, text(size)) for size in SIZES[:-1]), *times]
                if times[-1] > GROWTH * max(times[0], 1e-6):
                    yield way, f"{first!r} {pump!r}* {last!r}", times


PATTERNS = {label: (pattern, ways) for label, pattern, ways in [*compiled(), *literal()]}


def test_all_patterns_are_found() -> None:
    assert len(PATTERNS) > 60
    assert {"mailbridge.errors", "mailbridge.mailer"}.isdisjoint(PATTERNS)


@pytest.mark.parametrize("label", sorted(PATTERNS))
def test_time_grows_with_the_input_and_no_faster(label: str) -> None:
    pattern, ways = PATTERNS[label]
    assert next(slow_shapes(pattern, ways), None) is None


@pytest.mark.parametrize(
    ("text", "way"),
    [
        (r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?\.?)+", "fullmatch"),  # exponential
        (r"([\w.-]+) Message accepted for delivery", "search"),  # quadratic: from each place to the end
        (r"url\(\s*[\"']?\s*//", "search"),  # quadratic: how the blanks are divided
    ],
)
def test_slow_patterns_are_caught(text: str, way: str) -> None:
    assert next(slow_shapes(re.compile(text), [way]), None) is not None
