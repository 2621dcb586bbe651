"""Where the files of a state in a folder are. An id that becomes part of a path is one of ours, or the state was altered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backhaul.errors import StateError

_PLAN = re.compile(r"p-[\w-]{1,100}", re.ASCII)
_ROOMS = ("ledgers", "plans", "locks", "copies")
_LEDGER = re.compile(r"\w[\w.-]{0,150}")


def plan_file(folder: Path, plan: str) -> Path:
    """The file of a plan. Raises: StateError: its id is not one."""
    return _no_link(folder / "plans" / f"{_checked(_PLAN, plan, 'plan')}.parquet")


def ledger_file(folder: Path, scope: str) -> Path:
    """The file of a ledger. Raises: StateError: its id is not one."""
    return _no_link(folder / "ledgers" / f"{_checked(_LEDGER, scope, 'ledger')}.duckdb")


@contextmanager
def preparing(folder: Path) -> Iterator[None]:
    """Names the state folder where it cannot be made ready for use.

    Raises:
        StateError: it cannot be made, read or written to.
    """
    try:
        yield
    except OSError as error:
        raise StateError(
            f"the state folder {folder.name} cannot be used: {error.strerror or error}",
            hint="every command, also one that only reads, needs a state folder that it may write to; "
            "`state` in backhaul.yml names another",
        ) from None


def keep_private(folder: Path) -> None:
    """Takes a state folder and its database away from everybody but their owner.

    Raises:
        StateError: one of its parts is a symbolic link.
    """
    for path, mode in (
        (folder, 0o700),
        (folder / "state.db", 0o600),
        *((folder / room, 0o700) for room in _ROOMS),
    ):
        if path.exists() and _no_link(path).stat().st_mode & 0o077:
            with suppress(PermissionError):  # not ours to change
                path.chmod(mode)


def _no_link(path: Path) -> Path:
    if path.is_symlink():
        raise StateError(f"{path.parent.name}/{path.name} is a symbolic link, which is not followed",
                         hint="put the file or folder itself there; nothing was sent")  # fmt: skip
    return path


def _checked(pattern: re.Pattern[str], name: object, what: str) -> str:
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise StateError(f"the state names a {what} {str(name)[:60]!r}, which is no id of backhaul's: it was altered",
                         hint="restore a backup that you trust; nothing was sent")  # fmt: skip
    return name
