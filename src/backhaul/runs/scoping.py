"""What a person says of scopes: whose account a destination is (`bind`), and what a sync is called now (`rename`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from backhaul.errors import UsageError
from backhaul.ledger.elsewhere import OtherSync
from backhaul.schemas import Schemas
from backhaul.state.scopes import Scope
from backhaul.types import Mode
from backhaul.workspace import Workspace


async def bind(workspace: Workspace, sync: Any, *, same: bool) -> Scope:
    """Takes the account that a destination leads to for the one of before (`same`), or for another.

    Raises:
        UsageError: nothing was delivered to another address or account before.
        RunError: the sync runs, or the destination does not answer.
    """
    name = sync.destination
    with workspace.lease(sync):
        async with AsyncExitStack() as stack:
            stated = await Schemas(workspace, sync, stack).stated()
        kind = workspace.destination_class(name).spec.name
        return workspace.scopes.bind(sync, kind, workspace.address(name), stated, same=same)


def rename(workspace: Workspace, old: str, new: str) -> list[Scope]:
    """Gives what the state has of a sync to the one that its file calls otherwise now. Returns its ledgers.

    Raises:
        UsageError: the old name is in use, the new one is not, or both have ledgers.
        RunError: the sync runs.
    """
    syncs, scopes = workspace.project.syncs, workspace.scopes
    if old in syncs:
        raise UsageError(f"{syncs[old].file} is still called {old}", hint=f"write `name: {new}` there first")
    if new not in syncs:
        raise UsageError(
            f"there is no sync {new!r} in {workspace.project.name}", hint="change `name` in its file first"
        )
    own, taken = scopes.known_id(old), scopes.known_id(new)
    if own is None:
        known = ", ".join(orphans(workspace)) or "none"
        raise UsageError(f"the state knows no sync {old!r}", hint=f"it has these without a file: {known}")
    if any(one.sync == taken and workspace.has_ledger(one) for one in scopes.all()):
        raise UsageError(f"{new} has ledgers of its own, so those of {old} cannot become its ledgers",
                         hint=f"give the sync another name, which never ran, and `backhaul rename {old} NAME`")  # fmt: skip
    with workspace.state.lease(own, name=old):
        if taken is not None:  # it was only planned
            workspace.state.do("drop_sync", {"project": scopes.project, "name": new})
        workspace.state.do("rename_sync", {"project": scopes.project, "was": old, "name": new})
    return [one for one in scopes.all() if one.sync == own]


def orphans(workspace: Workspace) -> dict[str, list[Scope]]:
    """The scopes of syncs that have no file any more, by the sync's name."""
    found: dict[str, list[Scope]] = {}
    for scope in workspace.scopes.all():
        if scope.name not in workspace.project.syncs:
            found.setdefault(scope.name, []).append(scope)
    return found


def kept_elsewhere(workspace: Workspace, scope: Scope) -> list[str]:
    """The other ledgers of a sync: their objects and accounts, for people."""
    others = [one for one in workspace.scopes.all() if one.sync == scope.sync and one.id != scope.id]
    return [one.where for one in others if workspace.has_ledger(one)]


def other_writers(workspace: Workspace, sync: Any) -> list[str]:
    """Which other syncs write to a sync's records: the fields that both map, and mirrors that delete from one object."""
    found, own = [], workspace.scope(sync)
    for other in workspace.project.syncs.values():
        theirs = workspace.scope(other)
        known = own.is_recorded and theirs.is_recorded
        same = own.place == theirs.place if known else other.destination == sync.destination
        if other.name == sync.name or not same or other.object != sync.object:
            continue
        shared = sorted(sync.fields.keys() & other.fields.keys())
        if shared:
            found.append(
                f"{', '.join(shared)} of {sync.object}: {other.name} writes there too, and the last run wins"
            )
        if sync.mode is Mode.MIRROR and other.mode is Mode.MIRROR:
            moves = "a record that moves to the other model is deleted and created again if the model that it left runs first"
            found.append(f"{other.name} mirrors {sync.object} too: {moves}; put both into one model")
    return found


def syncs_beside(workspace: Workspace, sync: Any) -> list[OtherSync]:
    """The project's other syncs that create records of the same object of the same account. Those that only update hold
    none: they follow whatever another sync creates and deletes."""
    own, known = workspace.scope(sync), workspace.project.syncs
    return [
        OtherSync(one.name, workspace.ledger_of(one), tuple(_underway(workspace, one)))
        for one in workspace.scopes.all()
        if one.place == own.place
        and one.sync != own.sync
        and one.name in known
        and known[one.name].mode is not Mode.UPDATE
    ]


def _underway(workspace: Workspace, scope: Scope) -> Iterator[Path]:
    """The files of plans that are being sent, or were when their run ended: the ledger does not have their records yet."""
    for row in workspace.state.do("plans_with_status", {"scope": scope.id, "status": "delivering"}):
        path = workspace.plan_path(row["id"])
        if workspace.state.fetch_file(row["id"], path):
            yield path
