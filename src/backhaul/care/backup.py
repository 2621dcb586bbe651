"""`state backup`: a state in a folder as one file that can be carried elsewhere, and what is read of such a file."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from backhaul.errors import UsageError
from backhaul.ledger.plan import make_durable
from backhaul.locks import owned
from backhaul.state.files import plan_file
from backhaul.state.lease import hold
from backhaul.state.scopes import sync_of
from backhaul.state.sqlite_connection import opened, storing

FORMAT = 1
_MANIFEST = "manifest.json"
_ALLOWED = re.compile(r"state\.db|ledgers/[\w][\w.-]*\.duckdb(\.wal)?|plans/p-[\w-]+\.parquet")
"""What a backup may hold: nothing in it is written outside of the state's folder."""
_MOMENT = re.compile(r"[0-9T:.+Z-]{1,40}")
_MANIFEST_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Backup:
    """What is in a backup: when it was made (UTC), and how many files and bytes it has."""

    made_at: str
    files: int
    bytes: int


@contextmanager
def quiet(folder: Path) -> Iterator[None]:
    """Keeps every sync that has left anything in the folder from being run.

    Raises:
        RunError: one is being run.
    """
    names = {path.stem for path in (folder / "locks").glob("*.lock")}
    names |= {sync_of(path.stem) for path in (folder / "ledgers").glob("*.duckdb")}
    with ExitStack() as stack:
        for name in sorted(names):
            stack.enter_context(hold(folder / "locks", name))
        yield


@contextmanager
def beside(folder: Path, prefix: str) -> Iterator[Path]:
    """A folder for what is not whole yet: it holds people's values, and so those that killed processes left go first."""
    for left in folder.glob(f"{prefix}*"):
        with suppress(OSError), owned(left):
            shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as made, owned(Path(made)):
        yield Path(made)


def back_up(folder: Path, file: Path, now: str) -> Backup:
    """Writes the state into one file that only its owner can read; a file that is there is never overwritten.

    Raises:
        UsageError: the file exists, or there is no state.
        RunError: a sync is being run.
        StateError: the state is damaged, or the disk is full.
    """
    if file.exists():
        raise UsageError(f"{file} exists; it was left as it is", hint="name another file")
    if not (folder / "state.db").exists():
        raise UsageError(f"there is no state in {folder}", hint="the first run makes one")
    with storing(file), quiet(folder), beside(file.parent, ".backing-up-") as made:
        copy = made / "state.db"
        with closing(opened(folder / "state.db")) as state, closing(sqlite3.connect(copy)) as target:
            state.backup(target)
        parts = {"state.db": copy} | _files(folder, copy)
        size = _write(made / "backup", parts, now)
        os.link(made / "backup", file)  # fails where somebody else has made it meanwhile
        make_durable(file)
    return Backup(now, len(parts), size)


def _files(folder: Path, state: Path) -> dict[str, Path]:
    """The ledgers, and the plans that the state names."""
    with closing(sqlite3.connect(state)) as database:
        plans = database.execute("SELECT id FROM plans UNION SELECT plan FROM history").fetchall()
    paths = [*(folder / "ledgers").glob("*.duckdb"), *(folder / "ledgers").glob("*.duckdb.wal")]
    paths += [plan_file(folder, plan) for (plan,) in plans]
    return {str(path.relative_to(folder)): path for path in sorted(paths) if path.exists()}


def _write(target: Path, parts: dict[str, Path], now: str) -> int:
    sums = {name: _sum(path.open("rb")) for name, path in parts.items()}
    manifest = orjson.dumps({"format": FORMAT, "made_at": now, "files": sums})
    with target.open("xb") as handle, tarfile.open(fileobj=handle, mode="w") as tar:
        os.fchmod(handle.fileno(), 0o600)
        entry = tarfile.TarInfo(_MANIFEST)
        entry.size = len(manifest)
        tar.addfile(entry, io.BytesIO(manifest))
        for name, path in parts.items():
            tar.add(path, name, recursive=False)
    return target.stat().st_size


def _sum(handle: Any) -> str:
    with handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def extract(file: Path, fresh: Path) -> Backup:
    """Unpacks a backup into an empty folder, and makes it durable.

    Raises:
        UsageError: it is no backup, a damaged one, or a newer one.
    """
    try:
        with tarfile.open(file, mode="r:") as tar:
            room = file.stat().st_size  # nothing is compressed: its entries are no larger together
            manifest = orjson.loads(_opened(tar, tar.next()).read(_MANIFEST_LIMIT))
            if manifest["format"] > FORMAT:
                raise UsageError(
                    f"{file} was written by a newer backhaul", hint="upgrade backhaul; nothing was changed"
                )
            sums, made_at = dict(manifest["files"]), str(manifest["made_at"])
            if "state.db" not in sums or not _MOMENT.fullmatch(made_at):
                raise no_backup(file, "its list of files is not one that backhaul wrote")
            for entry in iter(tar.next, None):
                if not _ALLOWED.fullmatch(entry.name) or entry.name not in sums:
                    raise no_backup(file, f"it holds {entry.name!r}")
                room -= entry.size
                if entry.issparse() or room < 0:
                    raise no_backup(file, f"{entry.name} in it is larger than what the file holds of it")
                _take(tar, entry, fresh / entry.name)
            if missing := [
                name
                for name, said in sums.items()
                if not (_ALLOWED.fullmatch(name) and _is(fresh / name, said))
            ]:
                raise no_backup(file, f"{missing[0]!r} in it is damaged or missing")
            return Backup(made_at, len(sums), file.stat().st_size)
    except (tarfile.TarError, KeyError, TypeError, ValueError, EOFError):
        raise no_backup(file, "it cannot be read") from None


def _opened(tar: tarfile.TarFile, entry: tarfile.TarInfo | None) -> Any:
    handle = tar.extractfile(entry) if entry is not None and entry.isreg() else None
    if handle is None:
        raise ValueError("not a file")
    return handle


def _take(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(mode=0o700, exist_ok=True)
    with _opened(tar, entry) as source, target.open("xb") as handle:
        os.fchmod(handle.fileno(), 0o600)
        shutil.copyfileobj(source, handle)
        handle.flush()
        os.fsync(handle.fileno())


def _is(path: Path, said: str) -> bool:
    return path.exists() and _sum(path.open("rb")) == said


def no_backup(file: Path, why: str) -> UsageError:
    """The error for a file that cannot be restored."""
    return UsageError(f"{file} is not a whole backup of a state: {why}", hint="nothing was changed")
