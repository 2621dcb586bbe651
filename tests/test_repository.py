"""The house rules that a program can check."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import HANGS

import backhaul
from backhaul.config import load

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = sorted(path for room in ("src", "scripts", "benchmarks") for path in (ROOT / room).rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
BROAD_EXCEPTS: dict[str, int] = {"src/backhaul/cli/__init__.py": 1}
"""How many handlers of a file may swallow any exception; each needs a reason beside it."""


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_no_source_file_is_long() -> None:
    lengths = {shown(path): len(text_of(path).splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_long() -> None:
    long = {
        f"{shown(path)}:{node.lineno} {node.name}": length
        for path in SOURCES
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_nothing_is_left_for_later() -> None:
    mark = re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b")
    files = [*SOURCES, *PAGES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "src").rglob("*.sql")]
    files += [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
    marked = [
        f"{shown(path)}:{number}"
        for path in files
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if mark.search(line)
    ]
    assert marked == []


def swallows_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it catches any exception and does not end by raising it again."""
    caught = {node.id for node in ast.walk(handler.type or handler) if isinstance(node, ast.Name)}
    broad = handler.type is None or bool(caught & {"Exception", "BaseException"})
    last = handler.body[-1]
    return broad and not (isinstance(last, ast.Raise) and last.exc is None)


def test_no_exception_is_swallowed_unseen() -> None:
    found = Counter(
        shown(path)
        for path in SOURCES
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.ExceptHandler) and swallows_everything(node)
    )
    assert dict(found) == BROAD_EXCEPTS


def in_a_new_process(code: str) -> Any:
    """What the code prints last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANGS, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_public_names_are_the_listed_ones() -> None:
    visible = in_a_new_process(
        "import backhaul, json, types, __future__\n"
        "values = {name: getattr(backhaul, name) for name in {*backhaul.__all__, *dir(backhaul)}}\n"
        "hidden = (types.ModuleType, __future__._Feature)\n"
        "print(json.dumps(sorted(name for name, value in values.items()\n"
        "    if not name.startswith('_') and name != 'TYPE_CHECKING' and not isinstance(value, hidden))))"
    )
    assert visible == sorted(name for name in backhaul.__all__ if not name.startswith("_"))
    assert len(backhaul.__all__) == len(set(backhaul.__all__))


def entry_points() -> Iterator[str]:
    project = PYPROJECT["project"]
    yield from project["scripts"].values()
    for group in project["entry-points"].values():
        yield from group.values()


@pytest.mark.parametrize("target", list(entry_points()))
def test_entry_points_load(target: str) -> None:
    module, name = target.split(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_help_imports_no_driver() -> None:
    heavy = ["duckdb", "pyarrow", "aiohttp", "pydantic", "psycopg", "sqlglot", "adbc_driver_manager"]
    loaded = in_a_new_process(
        "import json, sys\n"
        "from backhaul.cli import main\n"
        "sys.argv = ['backhaul', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    )
    assert loaded == []


def test_versions_agree() -> None:
    newest = re.search(r"^## \[(.+?)\]", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == backhaul.__version__ == PYPROJECT["project"]["version"]


def test_generated_pages_are_up_to_date() -> None:
    """In a process of its own: click remembers the help options of the first context it sees."""
    made = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate_docs.py", "--check"], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr


def test_the_architecture_names_files_that_are_there() -> None:
    """A row of a table may leave out its room; the paragraph on the simulation speaks of its own folder."""
    missing: list[str] = []
    for line in text_of(ROOT / "ARCHITECTURE.md").splitlines():
        rooms = [ROOT / "src/backhaul", ROOT, ROOT / "tests/simulation"]
        if room := re.match(r"\| `(\w+/)`", line):
            rooms.insert(0, ROOT / "src/backhaul" / room[1])
        names = re.findall(r"`([\w/]+\.py)`", line)
        missing += [name for name in names if not any((room / name).exists() for room in rooms)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text_of(page))
    local = [one or other for one, other in targets if "://" not in (one or other)]
    missing = [link for link in local if not link.startswith(("#", "mailto:"))
               and not (page.parent / link.partition("#")[0]).exists()]  # fmt: skip
    assert missing == []


def projects() -> Iterator[tuple[str, dict[str, str]]]:
    """The project files of each page: YAML blocks whose first line is `# backhaul.yml` or `# syncs/…`."""
    for page in PAGES:
        blocks = re.findall(r"```yaml\n# (backhaul\.yml|syncs/\S+\.yml)\n(.*?)```", text_of(page), re.DOTALL)
        if any(name == "backhaul.yml" for name, _ in blocks):
            yield shown(page), dict(blocks)


@pytest.mark.parametrize(("page", "files"), [pytest.param(*it, id=it[0]) for it in projects()])
def test_examples_are_valid_projects(page: str, files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    names = re.findall(r"\$\{([A-Z_]+)\}", "".join(files.values()))
    dsn = "postgresql://u@127.0.0.1/db"
    project = load(tmp_path, environ={name: dsn if name.endswith("DSN") else "x1" for name in names})
    assert len(project.syncs) == len(files) - 1
