"""Proofs that records were forgotten: hashes of their keys, without any of their values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from backhaul.state.protocol import Row
from backhaul.state.scopes import Scope
from backhaul.workspace import Workspace


def hashes(salt: str, keys: Sequence[str]) -> list[str]:
    """What stands for keys (as JSON) and identifiers that were forgotten."""
    return [hashlib.sha256((salt + key).encode()).hexdigest() for key in keys]


def suppressions(workspace: Workspace, scope: Scope) -> list[Row]:
    """What keeps records of a sync from being sent again, by their keys."""
    rows = workspace.state.do("forgotten", {"place": scope.place})
    return [row for row in rows if row["sync"] == scope.sync and row["kind"] == "key"]


def lift_one(workspace: Workspace, scope: Scope, record: str) -> None:
    """Takes back that a record was forgotten."""
    workspace.state.do("lift_forgotten", {"place": scope.place, "sync": scope.sync, "record": record})


def listed(workspace: Workspace, sync: Any) -> list[dict[str, Any]]:
    """The proofs of a sync: `{hash, at, by, destination}`."""
    rows = suppressions(workspace, workspace.scope(sync))
    return [
        {"hash": row["hash"], "at": row["at"], "by": row["actor"], "destination": row["answer"]}
        for row in rows
    ]


def proof_of(
    workspace: Workspace, scope: Scope, keys: Sequence[str], identities: Iterable[str]
) -> dict[str, Any] | None:
    """`{at, by, destination, sync}` where one of these keys (as JSON), or an identifier, was forgotten: by which sync."""
    names = workspace.scopes.names()
    for row in workspace.state.do("forgotten", {"place": scope.place}):
        texts = list(identities) if row["kind"] == "identifier" else keys if row["sync"] == scope.sync else ()
        if row["hash"] in hashes(row["salt"], texts):
            return {
                "at": row["at"],
                "by": row["actor"],
                "destination": row["answer"],
                "sync": names.get(row["sync"], row["sync"]),
            }
    return None
