"""Reads a project: every file, every problem at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from backhaul.config.connections import Connections, read_connections
from backhaul.config.documents import Document, Where, read
from backhaul.config.explain import explain
from backhaul.config.inline import password_in, refuse_inline, secrets_of
from backhaul.config.interpolate import Interpolated, environment, interpolate
from backhaul.config.plugins import EntryPoints, Plugins
from backhaul.config.project import VERSION, BackhaulFile, DeadLetters, Project
from backhaul.config.sync import SyncConfig
from backhaul.config.syncs import order_problems, read_sync
from backhaul.errors import Problem, UsageError
from backhaul.redaction import redact

FILE = "backhaul.yml"


def find_root(start: Path) -> Path:
    """The nearest folder, from `start` upwards, that holds backhaul.yml.

    Raises:
        UsageError: there is none.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder
    raise UsageError(f"no {FILE} in {start} or any folder above it", hint="`backhaul init` makes a project")


def load(
    root: Path,
    *,
    environ: Mapping[str, str] | None = None,
    plugins: Plugins | None = None,
    env_file: Path | None = None,
) -> Project:
    """Reads the project in `root`, with the variables of `env_file` (`.env` where none is named). Nothing is connected to.

    Raises:
        UsageError: `problems` holds everything that is wrong, in the order of files and lines.
    """
    root = root.absolute()
    if not (root / FILE).exists():
        raise UsageError(f"no {FILE} in {root}", hint="`backhaul init` makes a project")
    reading = _Reading(root)
    environ = os.environ if environ is None else environ
    variables, broken = reading.attempt(environment, env_file or root / ".env", environ) or (environ, [])
    reading.problems.extend(broken)
    main = reading.attempt(read, root / FILE, FILE)
    project = _read_main(reading, main, variables, plugins or EntryPoints()) if main else None
    syncs = _read_syncs(reading, variables, project)
    if reading.problems or project is None:
        raise UsageError(problems=reading.sorted_problems())
    return project.project.model_copy(update={"syncs": syncs, "secrets": frozenset(reading.secrets)})


@dataclass(slots=True)
class _Reading:
    root: Path
    problems: list[Problem] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    """What no problem may quote; more than `secrets`, as nobody knows yet what a wrong key held."""

    def attempt(self, step: Any, *arguments: Any) -> Any:
        """What a step returns; None, and its problems noted, where it raises UsageError."""
        try:
            return step(*arguments)
        except UsageError as error:
            self.problems.extend(error.problems)
            return None

    def sorted_problems(self) -> list[Problem]:
        shown = {
            replace(problem, message=redact(problem.message, self.hidden)): None for problem in self.problems
        }
        return sorted(shown, key=lambda one: (one.file or "", one.line or 0, one.column or 0, one.message))


@dataclass(slots=True)
class _Main:
    """What could be read of backhaul.yml; `project` is complete only where no problem was noted."""

    project: Project
    connections: Connections
    defaults: dict[str, Any]


def _read_main(
    reading: _Reading, document: Document, variables: Mapping[str, str], plugins: Plugins
) -> _Main:
    _check_version(document)
    found = interpolate(document, variables, reading.root)
    reading.problems.extend(found.problems)
    reading.hidden |= _outside(found)
    connections = read_connections(document, found, plugins)
    inline = dict(refuse_inline(document, found, connections.types | {("dead_letters",): DeadLetters}))
    reading.hidden |= {found.texts[where].literal for where in inline}
    problems = [*connections.problems]
    data = {key: value for key, value in found.data.items() if key not in ("warehouses", "destinations")}
    file = _validated(BackhaulFile, data, document, (), problems)
    given = data.get("defaults")
    defaults = given if file is not None and isinstance(given, dict) else {}
    skip = {*found.broken, *inline}
    reading.problems.extend(problem for where, problem in problems if not _below(where, skip))
    reading.problems.extend(inline.values())
    reading.secrets |= connections.secrets | _state_secrets(found)
    if file is not None:
        reading.secrets |= secrets_of(found, ("dead_letters",), file.dead_letters)
    return _Main(_project(reading.root, file, connections), connections, defaults)


def _check_version(document: Document) -> None:
    version = document.data.get("version")
    if isinstance(version, int | float) and version > VERSION:
        message = f"this file is written for version {version}, and this backhaul reads version {VERSION}"
        raise UsageError(problems=[document.problem(("version",), message, "upgrade backhaul")])


def _outside(found: Interpolated) -> set[str]:
    """The values that references brought anywhere but into the project's name, with the passwords in them."""
    brought = {
        value for where, text in found.texts.items() if where != ("project",) for value in text.brought
    }
    passwords = (password_in(value) for value in brought)
    return brought | {spelling for password in passwords if password for spelling in password.spellings}


def _state_secrets(found: Interpolated) -> set[str]:
    text = found.texts.get(("state",))
    password = password_in(str(found.data.get("state")))
    return {*text.brought, *password.spellings} if text and text.brought and password else set()


def _validated(
    model: type[BaseModel],
    data: Any,
    document: Document,
    prefix: Where,
    problems: list[tuple[Where, Problem]],
) -> Any:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems.extend(explain(error, document, prefix, model))
        return None


def _project(root: Path, file: BackhaulFile | None, connections: Connections) -> Project:
    kept = file or BackhaulFile(project="unread")
    return Project(
        root=root,
        name=kept.project,
        state=kept.state,
        warehouses=connections.configs["warehouses"],
        destinations=connections.configs["destinations"],
        warehouse_types=connections.type_names["warehouses"],
        destination_types=connections.type_names["destinations"],
        syncs={},
        lease=kept.lease,
        memory_limit=kept.memory_limit,
        history=kept.history,
        dead_letters=kept.dead_letters,
        defaults=kept.defaults,
    )


def _read_syncs(reading: _Reading, variables: Mapping[str, str], main: _Main | None) -> dict[str, SyncConfig]:
    syncs: dict[str, SyncConfig] = {}
    first: dict[str, str] = {}
    for path in sorted((reading.root / "syncs").glob("*.y*ml")):
        file = f"syncs/{path.name}"
        if path.name.startswith("."):
            continue
        if path.suffix != ".yml":
            reading.problems.append(Problem("would not be read", file, hint="name it .yml"))
            continue
        sync = reading.attempt(_one_sync, reading, path, file, variables, main)
        if sync is None:
            continue
        folded = sync.name.casefold()
        if folded in first:
            message = f"the name {sync.name} is taken by {first[folded]}"
            reading.problems.append(sync.problem("name", message, "names differ in more than case"))
        first.setdefault(folded, file)
        syncs[sync.name] = sync
    reading.problems.extend(order_problems(syncs))
    return syncs


def _one_sync(
    reading: _Reading, path: Path, file: str, variables: Mapping[str, str], main: _Main | None
) -> SyncConfig | None:
    document = read(path, file)
    found = interpolate(document, variables, reading.root)
    inline = dict(refuse_inline(document, found, {}))
    reading.hidden |= {found.texts[where].literal for where in inline}
    connections, defaults = (main.connections, main.defaults) if main else (None, {})
    sync, problems = read_sync(reading.root, document, found.data, defaults, connections)
    skip = {*found.broken, *inline}
    reading.problems.extend([*found.problems, *inline.values()])
    reading.problems.extend(problem for where, problem in problems if not _below(where, skip))
    return sync


def _below(where: Where, skip: set[Where]) -> bool:
    return any(where[: len(prefix)] == prefix for prefix in skip)
