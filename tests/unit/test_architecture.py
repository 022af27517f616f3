"""Holds the order of the folders: an import may only point down, and no module imports itself again.

Works on sources given as text, so that planted violations can prove that each rule bites. Every import
statement counts, in functions and under TYPE_CHECKING too; a module imported by a computed name does not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mailbridge

ROOT = Path(mailbridge.__file__).parent.parent
ADAPTERS = ("mailbridge_django", "mailbridge_flask")
LONGEST_FILE = 400  # lines; what people hold up has files near 250, what ages badly has one beyond 1 000

#: The folders and modules of `mailbridge/`, bottom up; those of one line do not import each other.
ORDER = """
    reply secret deadline process
    errors
    message smtp proxy_protocol
    config results
    logs
    rendering net pool
    ratelimit oauth2 server
    client inbox
    delivery verify
    mailer
    registry
    __init__ testing
    cli
    __main__
"""
LEVEL = {room: number for number, line in enumerate(ORDER.strip().splitlines()) for room in line.split()}

#: What nothing within a package may import, and why.
NEVER = {
    "mailbridge": ("django mailbridge_django mailbridge_flask", "the core is neutral"),
    "mailbridge_django": ("flask mailbridge_flask", "one adapter knows nothing of the other"),
    "mailbridge_flask": ("django mailbridge_django", "one adapter knows nothing of the other"),
    "mailbridge.message": ("socket ssl threading asyncio select", "a message knows no server"),
    "mailbridge.smtp": ("socket ssl time threading logging asyncio select", "the protocol does no I/O"),
    "mailbridge.delivery.verdicts": (
        "mailbridge.pool mailbridge.net time socket",
        "it decides, and acts not",
    ),
}
FLASK_IS_FOR = ("mailbridge.inbox.web", "mailbridge_flask")  # the inbox's page is a Flask application
PUBLIC_MODULES = ("mailbridge", "mailbridge.errors", "mailbridge.server", "mailbridge.testing")

Sources = dict[str, str]  # dotted module name (a package's is that of its __init__) -> text


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def room_of(module: str) -> str:
    """The name in ORDER: "net" for mailbridge.net.tls.context, "__init__" for mailbridge itself."""
    return module.split(".")[1] if "." in module else "__init__"


def imports_of(module: str, sources: Sources) -> Iterator[tuple[str, str]]:
    """Pairs of (module, imported name or ""); a submodule that is imported by name counts as a module."""
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield (submodule, "") if submodule in sources else (base, alias.name)


def wrong_imports(sources: Sources) -> Iterator[str]:
    for module in sources:
        for target, _ in imports_of(module, sources):
            rules = {**NEVER, "mailbridge": (NEVER["mailbridge"][0] + " flask", NEVER["mailbridge"][1])}
            if module in FLASK_IS_FOR:
                rules = NEVER
            for importer, (forbidden, reason) in rules.items():
                if is_within(module, importer) and any(is_within(target, name) for name in forbidden.split()):
                    yield f"{module} imports {target}: {reason}"
            if target.startswith("."):
                yield f"{module} imports {target}: imports are absolute"
            elif is_within(module, "mailbridge") and is_within(target, "mailbridge"):
                yield from wrong_direction(module, target)


def wrong_direction(module: str, target: str) -> Iterator[str]:
    here, there = room_of(module), room_of(target)
    if here not in LEVEL:
        yield f"{module} has no place: decide what it may import, and add {here!r} to ORDER"
    elif here != there and LEVEL.get(there, 0) >= LEVEL[here]:
        yield f"{module} imports {target}: imports only point down"


def cycles(sources: Sources) -> Iterator[str]:
    """Every module that imports itself again by way of others."""
    graph = {module: {t for t, _ in imports_of(module, sources) if t in sources} for module in sources}
    for start in graph:
        reached: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            module = ahead.pop()
            if module not in reached:
                reached.add(module)
                ahead += graph[module]
        if start in reached:
            yield f"{start} imports itself again, by way of some of {', '.join(sorted(reached - {start}))}"


def private_uses(sources: Sources, public_names: list[str]) -> Iterator[str]:
    for module in (each for each in sources if each.startswith(ADAPTERS)):
        for target, name in imports_of(module, sources):
            if is_within(target, "mailbridge") and target not in PUBLIC_MODULES:
                yield f"{module} imports {target}, which is not public"
            elif target == "mailbridge" and name and name not in public_names:
                yield f"{module} imports mailbridge.{name}, which is not in mailbridge.__all__"
        attributes = (n for n in ast.walk(ast.parse(sources[module])) if isinstance(n, ast.Attribute))
        for name in (node.attr for node in attributes if ast.unparse(node.value) == "mailbridge"):
            if name not in public_names and f"mailbridge.{name}" not in PUBLIC_MODULES:
                yield f"{module} uses mailbridge.{name}, which is not in mailbridge.__all__"


def untidy_files(sources: Sources) -> Iterator[str]:
    for module, text in sources.items():
        if not ast.get_docstring(ast.parse(text)):
            yield f"{module} has no docstring; say what it is for and what it does not do"
        if len(text.splitlines()) > LONGEST_FILE:
            yield f"{module} has more than {LONGEST_FILE} lines; is it still one thing?"


def complaints(sources: Sources, public_names: list[str]) -> list[str]:
    rules = (wrong_imports, cycles, untidy_files)
    return [*(line for rule in rules for line in rule(sources)), *private_uses(sources, public_names)]


def project_sources() -> Sources:
    sources = {}
    for package in ("mailbridge", *ADAPTERS):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text("utf-8")
    return sources


def test_the_project_keeps_its_order() -> None:
    sources = project_sources()
    assert {"mailbridge", "mailbridge.smtp", "mailbridge.net", *ADAPTERS} <= sources.keys()
    assert complaints(sources, mailbridge.__all__) == []


def test_the_root_stays_small() -> None:
    assert len(list((ROOT / "mailbridge").glob("*.py"))) <= 12


SOUND: Sources = {
    "mailbridge": "'''.'''\nfrom mailbridge.mailer import Mailer",
    "mailbridge.errors": "'''.'''",
    "mailbridge.message.headers": "'''.'''",
    "mailbridge.smtp": "'''.'''",
    "mailbridge.smtp.replies": "'''.'''\nfrom mailbridge.errors import ProtocolViolation",
    "mailbridge.config.values": "'''.'''\nfrom mailbridge import errors",
    "mailbridge.net": "'''.'''\nimport socket\nfrom mailbridge.config.values import invalid",
    "mailbridge.pool": "'''.'''",
    "mailbridge.inbox.web": "'''.'''\nimport flask",
    "mailbridge.delivery.verdicts": "'''.'''",
    "mailbridge.mailer": "'''.'''\nfrom mailbridge import net, pool",
    "mailbridge_django": "'''.'''\nfrom mailbridge import Mailer\nimport django.conf",
    "mailbridge_flask": "'''.'''\nimport mailbridge, flask\nmailbridge.Mailer",
}


def test_sound_sources_draw_no_complaint() -> None:
    assert complaints(SOUND, ["Mailer"]) == []


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("mailbridge.smtp.replies", "import time", "imports time: the protocol does no I/O"),
        ("mailbridge.smtp.replies", "from socket import socket", "imports socket"),
        ("mailbridge.smtp.replies", "def f():\n    import logging.handlers", "imports logging.handlers"),
        ("mailbridge.smtp.replies", "from mailbridge.config import values", "imports only point down"),
        ("mailbridge.smtp.replies", "from mailbridge.message import headers", "imports only point down"),
        ("mailbridge.smtp.replies", "from . import commands", "imports are absolute"),
        ("mailbridge.message.headers", "import ssl", "knows no server"),
        ("mailbridge.pool", "from mailbridge import net", "mailbridge.net: imports only point down"),
        ("mailbridge.delivery.verdicts", "from time import sleep", "it decides"),
        (
            "mailbridge.errors",
            "if TYPE_CHECKING:\n    from mailbridge.mailer import Mailer",
            "imports only point down",
        ),
        ("mailbridge.errors", "from mailbridge import Mailer", "imports only point down"),
        ("mailbridge.mailer", "def f():\n    from flask import g", "the core is neutral"),
        ("mailbridge_django", "import mailbridge_flask", "nothing of the other"),
        ("mailbridge_flask", "from django.core import mail", "nothing of the other"),
        ("mailbridge_django", "from mailbridge.pool import Pool", "mailbridge.pool, which is not public"),
        ("mailbridge_django", "from mailbridge import Pool", "mailbridge.Pool, which is not in"),
        ("mailbridge_flask", "mailbridge.pool.Pool()", "uses mailbridge.pool"),
        (
            "mailbridge.errors",
            "def f():\n    from mailbridge.smtp import replies",
            "errors imports itself again, by way of some of mailbridge.smtp.replies",
        ),
        ("mailbridge.helpers", "'''.'''\nimport mailbridge.errors", "mailbridge.helpers has no place"),
        ("mailbridge.client.hints", "x = 1", "mailbridge.client.hints has no docstring"),
        ("mailbridge.client.hints", "'''.'''\n" + "x = 1\n" * LONGEST_FILE, "more than 400 lines"),
    ],
)
def test_a_planted_violation_is_found(module: str, line: str, complaint: str) -> None:
    sources = {**SOUND, module: SOUND.get(module, "") + "\n" + line}
    assert any(complaint in found for found in complaints(sources, ["Mailer"]))
