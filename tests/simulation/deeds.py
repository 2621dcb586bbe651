"""What people do between two runs: they change the mapping, the account and the name of a sync, and give commands."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backhaul.care.backup import back_up
from backhaul.care.restore import restore
from backhaul.errors import BackhaulError
from backhaul.ledger.plan import Plan
from backhaul.records.forget import Forget
from backhaul.runs.baseline import take_over
from backhaul.runs.report import RunOptions
from backhaul.runs.reset import reset
from backhaul.runs.scoping import rename
from backhaul.runs.sending import keep_plan
from backhaul.runs.undo import plan_of_run, plan_undo
from backhaul.workspace import Workspace

from .house import Folder, SimWorkspace
from .oracle import Oracle
from .scenario import Faults
from .server import Server
from .timing import VirtualLoop

if TYPE_CHECKING:
    from .story import Story

_STRANGERS = 3
"""Records at another account that somebody else wrote there."""


@dataclass(frozen=True)
class Place:
    """One account of the destination, and who judges what is sent there."""

    server: Server
    oracle: Oracle


class Deeds:
    """The people of one story. `places` are the accounts that the destination has led to."""

    def __init__(self, story: Story, rng: random.Random) -> None:
        self.story, self.rng = story, rng
        self.places = {story.setup.account: Place(story.server, story.oracle)}
        self._renamed = 0

    def do(self, deed: str) -> None:
        self.story.oracle.note("DEED", deed)
        getattr(self, f"_{deed.replace(' ', '_')}")()

    def accounts(self) -> list[str]:
        """Every account that the destination has led to, the one of today first."""
        now = self.story.setup.account
        return [now, *(one for one in self.places if one != now)]

    # the mapping

    def _exchange(self) -> None:
        """Two fields exchange their columns, and their places in the file."""
        swapped = {"b": "c", "c": "b", "d": "b"}
        fields = dict(self.story.setup.fields)
        other = next(name for name in fields if name in ("c", "d"))
        fields["b"], fields[other] = fields[other], fields["b"]
        names = [swapped.get(name, name) if name != "b" else other for name in fields]
        self._map(tuple((name, fields[name]) for name in names))

    def _rename_field(self) -> None:
        """A field of the destination is called otherwise."""
        other = {"c": "d", "d": "c"}
        self._map(tuple((other.get(name, name), column) for name, column in self.story.setup.fields))

    def _map(self, fields: tuple[tuple[str, str], ...]) -> None:
        self.story.set_up(replace(self.story.setup, fields=fields))

    def _reorder(self) -> None:
        """The same fields in another order: nothing changes."""
        fields = self.story.setup.fields
        self.story.set_up(replace(self.story.setup, fields=fields[::-1]))

    def _reword(self) -> None:
        self.story.set_up(replace(self.story.setup, reworded=not self.story.setup.reworded))

    # the account and the name

    def _account(self) -> None:
        """The credential is another account's; or is the first one's again."""
        now = self.story.setup.account
        self.move("second" if now == "first" else "first")

    def move(self, account: str) -> None:
        """From now on the destination says that it is this account."""
        story = self.story
        if account == story.setup.account:
            return
        setup = replace(story.setup, account=account)
        if account not in self.places:
            self.places[account] = self._open(account)
        place = self.places[account]
        place.oracle.house = story.house
        story.server, story.oracle = place.server, place.oracle
        story.set_up(setup)
        story.oracle.note("the account is", account)

    def _open(self, account: str) -> Place:
        """An account with records that are none of ours."""
        story = self.story
        server = Server(story.setup, story.time, random.Random(f"server {story.scenario.seed} {account}"))
        server.records = {
            f"other{number}": {"id": f"other{number}", "a": 5, "b": "red"} for number in range(_STRANGERS)
        }
        if story.setup.mode == "update":
            server.records |= {key: row | {"a": 7} for key, row in story.source.moment().items()}
        return Place(server, Oracle(story.house, server, story.source, story.setup, story.sync, story.oracle))

    def _rename_sync(self) -> None:
        story, old = self.story, self.story.sync
        self._renamed += 1
        story.sync = f"s{self._renamed}"
        for place in self.places.values():
            place.oracle.sync = story.sync
        with story.workspace() as workspace:
            if workspace.scopes.known_id(old) is not None:  # else no run came so far
                rename(workspace, old, story.sync)

    # commands

    def _reset(self) -> None:
        with self._known() as workspace:
            scope = self.story.scope(workspace, self.story.sync)
            if scope is not None:
                found = reset(workspace, scope, workspace.project.syncs[self.story.sync])
                self.story.oracle.note("reset", found)
                self.story.oracle.reset()

    def _forget(self) -> None:
        """A record is forgotten, whatever became of what was sent of it."""
        story = self.story
        if not story.source.rows:
            return
        row = story.source.rows[self.rng.choice(sorted(story.source.rows))]
        key = story.source.identifier(row)
        story.oracle.erasing = {key}
        with self._known() as workspace:
            if story.scope(workspace, story.sync) is not None:
                proof = self._command(
                    Forget(workspace, workspace.project.syncs[story.sync], str(row["id"])).do()
                )
                story.oracle.note("forgotten", key, proof and proof["destination"])
                story.oracle.forgets(key, done=proof is not None)
        story.oracle.erasing = set()
        story.pass_time()

    def _baseline(self) -> None:
        """What the destination holds as the model has it is taken as delivered."""
        story = self.story
        if self.rng.random() < 0.5:
            story.source.change(0.3)
        with self._known() as workspace:
            taken = self._command(take_over(workspace, workspace.project.syncs[story.sync], read=True))
        story.oracle.note("baseline", taken)
        if taken is not None:
            story.oracle.taken_over(story.ledger())
        story.pass_time()

    def _undo(self) -> None:
        """What a run replaced is put back, by a run under faults."""
        story = self.story
        runs = list(story.oracle.past)
        plan = self._undo_plan(self.rng.choice(runs)) if runs else None
        if plan is not None:
            story.oracle.undoing = story.oracle.past[plan.undo or ""]
            story.run(RunOptions(reviewed=(plan.digest, plan.id)), story.doom(self.rng))
            story.oracle.undoing = None

    def _undo_plan(self, run: str) -> Plan | None:
        """None where the run cannot be undone any more."""
        with self._known() as workspace:
            sync = workspace.project.syncs[self.story.sync]
            try:
                if self.story.scope(workspace, self.story.sync) is None:
                    return None
                with workspace.engine() as engine:
                    plan, left = plan_undo(engine, workspace, sync, run, plan_of_run(workspace, run)[1])
                keep_plan(workspace, plan, "reviewed")
            except BackhaulError as error:
                self.story.oracle.note("could not undo:", error)
                return None
        self.story.oracle.note("undo of", run, plan.changes, {why: one["count"] for why, one in left.items()})
        return plan if plan.total else None

    def _restore(self) -> None:
        """The state is what it was before the last run, which was not known then."""
        story, file = self.story, self.story.folder / f"backup{self.story.ending.runs}"
        if not (story.house.folder / "state.db").exists():
            return
        back_up(story.house.folder, file, story.around.now())
        story.storm(race=False)
        restore(story.house.folder, file, self._open_at, self._reset_all)
        story.oracle.note("restored")
        known = story.ledger().keys()
        for place in self.places.values():
            place.oracle.restored(known if place.oracle is story.oracle else frozenset())
        for line in (story.beside, story.partner):
            if line is not None:
                line.oracle.restored(story.ledger(line.sync).keys())

    def _open_at(self, folder: Path) -> SimWorkspace:
        story, house = self.story, self.story.house
        at = Folder(
            story.time, house.rng, folder.parent, house.engine, name=house.name, lives=house.lives, at=folder
        )
        return story.workspace(house=at).workspace

    def _reset_all(self, workspace: Workspace) -> None:
        for scope in workspace.scopes.all():
            reset(workspace, scope, workspace.project.syncs.get(scope.name))

    def _mode(self) -> None:
        """A mirror deletes no more, or an upsert does from now on; inserts become upserts."""
        mode = "mirror" if self.story.setup.mode == "upsert" else "upsert"
        self.story.set_up(replace(self.story.setup, mode=mode, cursor=False))

    def _known(self) -> Any:
        """A workspace that knows the account of today, as one does after a run."""
        opened = self.story.workspace()
        workspace = opened.workspace
        scope = self.story.scope(workspace, self.story.sync)
        if scope is not None:
            workspace.settle_scope(workspace.project.syncs[self.story.sync], scope)
        return opened

    def _command(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Does it under the faults of a run, or without; None where it failed."""
        story = self.story
        if self.rng.random() < 0.5:
            story.server.faults = Faults()
        story.oracle.begin()
        loop = VirtualLoop(story.time, story.house.rng, lambda: None)
        try:
            return loop.live(work)
        except BackhaulError as error:
            story.oracle.note("could not:", error)
            return None
