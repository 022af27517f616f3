"""The documents keep up with the code: every option and every error is in them, and their examples compile.

That the README's examples also work, is the question of tests/acceptance/test_readme.py.
"""

from __future__ import annotations

import ast
import re
from dataclasses import MISSING, fields
from importlib import import_module
from importlib.util import find_spec

import pytest

from mailbridge import errors, pool
from mailbridge.config import smtp_config
from mailbridge.config.urls import SETTINGS_ONLY
from mailbridge.verify import STAGE_NAMES
from tests.documents import DOCUMENTS, GROUPS, OPTIONS, ROOT

# What an example may import that is not of this project, and only in environments that have it.
FRAMEWORKS = {"django", "flask", "celery"}
NEEDS = {"mailbridge_django": "django", "mailbridge_flask": "flask"}

# Examples that are whole files begin with their name; others beside them may import them.
FILES = {
    name
    for document in DOCUMENTS
    for name in re.findall(r"^```python\n# (\w+)\.py$", document.read_text(encoding="utf-8"), re.MULTILINE)
}

Row = dict[str, str]


def rows(text: str) -> Row:
    """The tables: what stands in backticks in the first column, and the second column."""
    found: Row = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            _, first, second, *_ = line.split("|")
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", first), second.strip())
    return found


def group_fields() -> list[tuple[str, object]]:
    return [
        (f"{group}.{field.name}", None if field.default in (MISSING, ()) else field.default)
        for group, kind in GROUPS.items()
        for field in fields(kind)
        if field.name != "supplier"  # what oauth2 itself is where it is a callable
    ]


def examples() -> list[tuple[str, str]]:
    return [
        (f"{document.name}-{number}", code)
        for document in DOCUMENTS
        for number, code in enumerate(
            re.findall(
                r"^```python\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
            )
        )
    ]


@pytest.mark.parametrize("name", [name for name in smtp_config.KNOWN if name not in GROUPS])
def test_every_option_is_described(name: str) -> None:
    assert name in rows(OPTIONS)


@pytest.mark.parametrize(("name", "default"), group_fields())
def test_every_option_of_a_group_is_described_with_its_default(name: str, default: object) -> None:
    told = rows(OPTIONS)[name]
    if isinstance(default, (bool, str)):
        assert str(default) in told
    elif isinstance(default, (int, float)):
        assert float(told) == default
    else:
        assert default is None


def test_no_option_is_described_that_does_not_exist() -> None:
    further = {"dkim.key_file", "dsn.ret", "dsn.notify", "dsn.envid"}
    known = {*smtp_config.KNOWN, *further, *(name for name, _ in group_fields())}
    described = {name for name in rows(OPTIONS) if re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", name)}
    assert described - known == set()


def test_what_may_not_stand_in_a_url_is_listed() -> None:
    section = OPTIONS.partition("**A URL is data**")[2].partition("\n```")[0]
    listed = set(re.findall(r"`([a-z0-9_.]+)`", section))
    groups = {*GROUPS, "dsn"} - {"oauth2", "rate"}  # which can also be dotted paths
    assert listed - {"auth", "host"} == SETTINGS_ONLY - groups - {"url"}


def tree_in(text: str) -> list[str]:
    """The lines of the tree of errors, up to what is said beside them."""
    lines = re.findall(r"^ {4}[ │├└─]*(?:[A-Z]\w+)(?: \([\w., ]+\))?", text, re.MULTILINE)
    return lines[[line.strip().startswith("MailbridgeError") for line in lines].index(True) :]


def test_the_tree_of_errors_is_that_of_the_code() -> None:
    drawn = tree_in((ROOT / "docs" / "errors.md").read_text(encoding="utf-8"))
    assert drawn == tree_in(errors.__doc__ or "")
    assert {re.search(r"[A-Z]\w+", line)[0] for line in drawn} == set(errors.__all__)  # type: ignore[index]


def test_every_stage_of_verify_is_described() -> None:
    text = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
    assert [name for name in rows(text) if name in STAGE_NAMES] == list(STAGE_NAMES)


def test_every_number_of_the_pool_is_described() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    told = {
        name for row in re.findall(r"^\| (`.*)$", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert {field.name for field in fields(pool.PoolStats)} <= told


@pytest.mark.parametrize(("where", "code"), examples(), ids=[where for where, _ in examples()])
def test_examples_compile_and_import_what_exists(where: str, code: str) -> None:
    tree = compile(code, where, "exec", ast.PyCF_ONLY_AST)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            check_import(node.module, [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                check_import(alias.name, [])


def check_import(module: str, names: list[str]) -> None:
    root = module.partition(".")[0]
    needed = NEEDS.get(root, root)
    if module in FILES or (needed in FRAMEWORKS and find_spec(needed) is None):
        return
    found = import_module(module)
    assert [name for name in names if not hasattr(found, name)] == []


def test_the_guard_against_internal_networks_is_described_in_the_same_words_everywhere() -> None:
    said = set()
    for page in ("options", "proxies", "security"):
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        pattern = r"^With `allow_internal_networks=False` .*? is not checked\."
        (paragraph,) = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
        said.add(" ".join(paragraph.split()))
    assert len(said) == 1


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_nobody_is_told_to_install_the_other_mailbridge() -> None:
    for document in [*DOCUMENTS, *ROOT.glob("*.md")]:
        assert not re.search(r"install +'?mailbridge(?!-smtp)\b", document.read_text(encoding="utf-8"))


def test_what_the_architecture_page_names_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    words = set(re.findall(r"`([\w./]+)`", text))
    paths = {word for word in words if "/" in word}
    assert len(paths) > 40
    assert {
        path for path in paths if not any((base / path).exists() for base in (ROOT, ROOT / "mailbridge"))
    } == set()
    recipes = set(re.findall(r"`([A-Z_]{4,}|_\w+)`", text.partition("## Recipes")[2]))
    named = [ROOT / "mailbridge" / path for path in paths] + [ROOT / path for path in paths]
    code = "".join(path.read_text(encoding="utf-8") for path in named if path.is_file())
    assert {name for name in recipes if not re.search(rf"^(?:def )?{name}\b", code, re.MULTILINE)} == set()
