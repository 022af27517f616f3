"""Holds the arrows between the rooms: an import may only point down, and some arrows must never be.

Works on sources given as text, so that planted violations can prove that each rule bites. It sees import
statements wherever they stand, in functions and under TYPE_CHECKING too; it does not see a module imported by
a computed name.
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

LAYERS = (
    "errors secret results priorities options rate_options endpoint login_options oauth2_options urls"
    " server_options untrusted config envelope extensions addresses mailbox message hints libraries logs"
    " proxies mechanisms services attachment fields mime defaults dkim_options masking oauth2_providers",
    "protocol",
    "flows",
    "net",
    "pool retry failover breaker server_breaker channel connection connecting sending login conversation"
    " credentials transactions ratelimit throttling oauth2 rendering serializing content_files"
    " content_sources preparing signing dkim_body processes",
    "mailer session upstream server_stats registry verification routing __init__",
    "cli cli_oauth2 cli_serve testing server inbox __main__",
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names.split()}

# Beside the layers: importer -> what it must not import, and why.
NEVER = {
    "mailbridge.smtp": ("socket ssl time threading logging asyncio select", "it turns bytes into values"),
    "mailbridge.smtp.flows": (
        "mailbridge.config.smtp_config asyncio time socket ssl select threading",
        "it asks for steps",
    ),
    "mailbridge.net": ("mailbridge.smtp", "a driver that understands SMTP would be a second engine"),
    "mailbridge.pool": (
        "mailbridge.client.connection mailbridge.smtp.flows mailbridge.smtp",
        "it lends things",
    ),
    "mailbridge.delivery.verdicts": (
        "mailbridge.pool mailbridge.net time socket",
        "it decides; the mailer acts",
    ),
    "mailbridge": ("django flask mailbridge_django mailbridge_flask", "the core is neutral"),
    "mailbridge_django": ("flask mailbridge_flask", "the adapters are neighbours, not family"),
    "mailbridge_flask": ("django mailbridge_django", "the adapters are neighbours, not family"),
}
# The page of the development inbox is a Flask application; nothing of the core imports it.
EXEMPT = {("mailbridge.inbox.web", "flask")}
PUBLIC_MODULES = ("mailbridge", "mailbridge.errors", "mailbridge.server", "mailbridge.testing")

Sources = dict[str, str]  # dotted module name ("mailbridge.net.__init__" is "mailbridge.net") -> text


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def room_of(module: str) -> str:
    """The name in LAYERS: "net" for mailbridge.net.tls.context, "__init__" for mailbridge itself."""
    return module.split(".")[1] if "." in module else "__init__"


def statements(tree: ast.AST, at_import: bool) -> Iterator[ast.AST]:
    """All nodes below `tree`; with `at_import` only those that run while the module is imported."""
    for node in ast.iter_child_nodes(tree):
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not (at_import and (lazy or typing_only)):
            yield node
            yield from statements(node, at_import)


def imports_of(module: str, sources: Sources, *, at_import: bool = False) -> Iterator[tuple[str, str]]:
    """Pairs of (module, imported name or ""); a submodule that is imported by name counts as a module."""
    for node in statements(ast.parse(sources[module]), at_import):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                is_package = any(other.startswith(module + ".") for other in sources)
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join(parts + [base] * bool(base))
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield (submodule, "") if submodule in sources else (base, alias.name)


def wrong_arrows(sources: Sources) -> Iterator[str]:
    for module in sources:
        for target, _ in imports_of(module, sources):
            for importer, (forbidden, reason) in NEVER.items():
                if (module, target) in EXEMPT:
                    continue
                if is_within(module, importer) and any(is_within(target, name) for name in forbidden.split()):
                    yield f"{module} imports {target}: {reason}"
            is_step = target == "mailbridge.smtp.flows.steps"
            if (
                is_within(module, "mailbridge.net")
                and is_within(target, "mailbridge.smtp.flows")
                and not is_step
            ):
                yield f"{module} imports {target}: a driver knows the steps, not the conversations"
            if is_within(module, "mailbridge") and is_within(target, "mailbridge"):
                here, there = LAYER_OF.get(room_of(module)), LAYER_OF.get(room_of(target))
                if here is not None and there is not None and there > here:
                    yield f"{module} (layer {here}) imports {target} (layer {there}): imports only point down"


def unassigned_rooms(sources: Sources) -> Iterator[str]:
    for module in sources:
        if is_within(module, "mailbridge") and room_of(module) not in LAYER_OF:
            yield f"{module} has no layer: decide where it belongs and add {room_of(module)!r} to LAYERS here"


def private_uses(sources: Sources, public_names: list[str]) -> Iterator[str]:
    for module in sources:
        if not any(is_within(module, adapter) for adapter in ADAPTERS):
            continue
        for target, name in imports_of(module, sources):
            if is_within(target, "mailbridge") and target not in PUBLIC_MODULES:
                yield f"{module} imports {target}, which is not public"
            elif target == "mailbridge" and name and name not in public_names:
                yield f"{module} imports mailbridge.{name}, which is not in mailbridge.__all__"
        attributes = (
            node for node in ast.walk(ast.parse(sources[module])) if isinstance(node, ast.Attribute)
        )
        for name in (node.attr for node in attributes if ast.unparse(node.value) == "mailbridge"):
            if name not in public_names and f"mailbridge.{name}" not in PUBLIC_MODULES:
                yield f"{module} uses mailbridge.{name}, which is not in mailbridge.__all__"


def import_cycles(sources: Sources) -> Iterator[str]:
    """Every module that, while it is imported, imports itself again by way of others."""
    graph = {
        module: {target for target, _ in imports_of(module, sources, at_import=True) if target in sources}
        for module in sources
    }
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


def untidy_files(sources: Sources) -> Iterator[str]:
    for module, text in sources.items():
        if not ast.get_docstring(ast.parse(text)):
            yield f"{module} has no docstring; say what it is for and what it does not do"
        if len(text.splitlines()) > LONGEST_FILE:
            yield f"{module} has more than {LONGEST_FILE} lines; is it still one thing?"


def complaints(sources: Sources, public_names: list[str]) -> list[str]:
    rules = (wrong_arrows, unassigned_rooms, import_cycles, untidy_files)
    return [*(line for rule in rules for line in rule(sources)), *private_uses(sources, public_names)]


def project_sources() -> Sources:
    sources = {}
    for package in ("mailbridge", *ADAPTERS):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text("utf-8")
    return sources


def test_the_project_keeps_its_arrows() -> None:
    sources = project_sources()
    assert {"mailbridge", "mailbridge.smtp", "mailbridge.net", *ADAPTERS} <= sources.keys()
    assert complaints(sources, mailbridge.__all__) == []


SOUND: Sources = {
    "mailbridge": "'''.'''\nfrom .mailer import Mailer",
    "mailbridge.errors": "'''.'''",
    "mailbridge.config.smtp_config": "'''.'''\nfrom . import errors",
    "mailbridge.smtp": "'''.'''",
    "mailbridge.smtp.replies": "'''.'''\nfrom ..errors import ProtocolViolation",
    "mailbridge.smtp.flows": "'''.'''",
    "mailbridge.smtp.flows.steps": "'''.'''",
    "mailbridge.smtp.flows.opening": "'''.'''\nfrom ..protocol import replies\nfrom .steps import StartTls",
    "mailbridge.net": "'''.'''\nfrom .driver import Driver",
    "mailbridge.client.driver": "'''.'''\nimport socket\nfrom ..flows import steps",
    "mailbridge.pool": "'''.'''\nfrom .errors import PoolTimeout",
    "mailbridge.delivery.verdicts": "'''.'''",
    "mailbridge.mailer": "'''.'''\nfrom . import net, pool, retry",
    "mailbridge_django": "'''.'''\nfrom mailbridge import Mailer\nimport django.conf",
    "mailbridge_flask": "'''.'''\nimport mailbridge, flask\nmailbridge.Mailer",
}


def test_sound_sources_draw_no_complaint() -> None:
    assert complaints(SOUND, ["Mailer"]) == []


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("mailbridge.smtp.replies", "import time", "imports time: it turns bytes"),
        ("mailbridge.smtp.replies", "from socket import socket", "imports socket"),
        ("mailbridge.smtp.replies", "def f():\n    import logging.handlers", "imports logging.handlers"),
        (
            "mailbridge.smtp.flows.opening",
            "from ..config import SMTPConfig",
            "imports mailbridge.config.smtp_config: it asks",
        ),
        ("mailbridge.smtp.flows.opening", "from .. import net", "(layer 3): imports only point down"),
        ("mailbridge.client.driver", "from ..flows.opening import opening", "knows the steps, not the"),
        ("mailbridge.client.driver", "from ..protocol.replies import parse", "second engine"),
        ("mailbridge.pool", "from mailbridge.smtp.flows import steps", "it lends things"),
        ("mailbridge.delivery.verdicts", "from time import sleep", "it decides; the mailer acts"),
        ("mailbridge.errors", "if TYPE_CHECKING:\n    from .mailer import Mailer", "imports only point down"),
        ("mailbridge.errors", "from mailbridge import Mailer", "imports only point down"),
        ("mailbridge.mailer", "def f():\n    from flask import g", "the core is neutral"),
        ("mailbridge_django", "import mailbridge_flask", "neighbours"),
        ("mailbridge_flask", "from django.core import mail", "neighbours"),
        ("mailbridge_django", "from mailbridge.pool import Pool", "mailbridge.pool, which is not public"),
        ("mailbridge_django", "from mailbridge import Pool", "mailbridge.Pool, which is not in"),
        ("mailbridge_flask", "mailbridge.pool.Pool()", "uses mailbridge.pool"),
        (
            "mailbridge.errors",
            "from . import config",
            "imports itself again, by way of some of mailbridge.config.smtp_config",
        ),
        ("mailbridge.mailer", "from mailbridge import Mailer", "mailbridge.mailer imports itself again"),
        ("mailbridge.helpers", "'''.'''", "mailbridge.helpers has no layer"),
        ("mailbridge.client.hints", "x = 1", "mailbridge.client.hints has no docstring"),
        ("mailbridge.client.hints", "'''.'''\n" + "x = 1\n" * LONGEST_FILE, "more than 400 lines"),
    ],
)
def test_a_planted_violation_is_found(module: str, line: str, complaint: str) -> None:
    sources = {**SOUND, module: SOUND.get(module, "") + "\n" + line}
    assert any(complaint in found for found in complaints(sources, ["Mailer"]))


def test_an_import_inside_a_function_makes_no_cycle() -> None:
    sources = {**SOUND, "mailbridge.errors": "'''.'''\ndef f():\n    from . import config"}
    assert list(import_cycles(sources)) == []
