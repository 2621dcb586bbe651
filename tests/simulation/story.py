"""Plays one scenario: runs under faults, kills and restarts, a drain without them, and the oracle's verdict."""

from __future__ import annotations

import random
import shutil
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backhaul.errors import BackhaulError
from backhaul.ledger.ledger import Ledger
from backhaul.runs.report import RunOptions, RunReport
from backhaul.runs.run import Run
from backhaul.state.scopes import Scope

from .deeds import Deeds
from .house import SYNC, Engine, House, SimState, SimWorkspace, project_of, surroundings
from .oracle import Oracle, Violation
from .race import Line, Race
from .scenario import MAX_LATE, Faults, Scenario, Setup, Source, scenario_of
from .server import Network, Server, value_of
from .shared import SharedSimState
from .timing import Killed, Stuck, Time, VirtualLoop

_DRAIN = 8
PARTNER = "u"
"""The other mirror of the same object."""
_OPTIMISED = 8
"""One seed of so many is played with the embedded engine's optimiser."""
_STEPS = {"tick": 60, "journal": 12, "state": 25, "engine": 70}
"""Kinds of steps at which a process is killed, and about how many of them a run has."""


@dataclass
class Ending:
    """What became of one seed."""

    seed: int
    violations: list[Violation]
    trace: list[str] = field(default_factory=list)
    runs: int = 0
    kills: int = 0
    sends: int = 0
    requests: int = 0
    changes: int = 0

    @property
    def figures(self) -> dict[str, int]:
        return {
            "runs": self.runs,
            "kills": self.kills,
            "changes": self.changes,
            "sends": self.sends,
            "requests": self.requests,
        }


class Story:
    """One scenario on one machine, with one engine that outlives it."""

    def __init__(self, scenario: Scenario, engine: Engine, folder: Path) -> None:
        self.scenario, self.setup, self.rng = scenario, scenario.setup, scenario.rng
        self.folder = folder
        seed = scenario.seed
        self.time = Time()
        self.sync = SYNC
        self.server = Server(self.setup, self.time, random.Random(f"server {seed}"))
        self.source = Source(random.Random(f"source {seed}"), self.setup, scenario.rows)
        self.house = House(self.time, random.Random(f"house {seed}"), folder, engine)
        self.oracle = Oracle(self.house, self.server, self.source, self.setup)
        self.house.on_kill = lambda: self.oracle.killed()
        self.deeds = Deeds(self, random.Random(f"people {seed}"))
        self.moves = random.Random(f"moves {seed}")
        self.races = random.Random(f"races {seed}")
        self.late = random.Random(f"late jumps {seed}")
        self.beside: Line | None = None
        self.beside_it: dict[str, Setup] = {}
        self._ledgers: dict[tuple[Any, ...], dict[str, tuple[str | None, int]]] = {}
        """The ledger as it was read last, by file and version."""
        self.around = surroundings(self.time, random.Random(f"engine {seed}"))
        self.ending = Ending(seed, self.oracle.violations, self.oracle.trace)
        self.partner = self._partner() if scenario.partner else None
        self.partners = random.Random(f"partners {seed}")
        if self.setup.mode == "update":
            self.server.records = {
                key: row | {"a": 7} for key, row in self.source.moment().items() if self.rng.random() < 0.8
            }

    def _partner(self) -> Line:
        """Another mirror of the same object, whose model is empty at first."""
        source = Source(random.Random(f"partner source {self.scenario.seed}"), self.setup, 0)
        oracle = Oracle(self.house, self.server, source, self.setup, PARTNER, self.oracle)
        oracle.partner, self.oracle.partner = self.oracle, oracle
        return Line(PARTNER, self.setup, source, self.server, oracle)

    @contextmanager
    def _as_partner(self) -> Iterator[None]:
        """The other mirror runs."""
        assert self.partner is not None
        mine = self.sync, self.setup, self.source, self.oracle
        self.sync, self.setup = PARTNER, self.partner.setup
        self.source, self.oracle = self.partner.source, self.partner.oracle
        self.beside_it = {mine[0]: mine[1]}
        try:
            yield
        finally:
            self.sync, self.setup, self.source, self.oracle = mine
            self.beside_it = {}

    def _trade(self) -> None:
        """Rows move to the other mirror, which mostly runs."""
        if self.partner is None:
            return
        self.source.give(self.partner.source, self.partners)
        self.partner.source.change(0.3)
        if self.partners.random() < 0.7:
            with self._as_partner():
                self.run(RunOptions(), self.doom(self.partners))

    def _drain_both(self) -> None:
        """What one mirror leaves to the other is only gone when both are at rest."""
        with self._as_partner():
            self._drain(judged=False)
        self._drain()
        with self._as_partner():
            self.oracle.final(self.ledger())

    def play(self) -> Ending:
        try:
            for _ in range(self.scenario.runs):
                self.storm()
            for deed in self.scenario.deeds:
                self.deeds.do(deed)
                self.storm(race=False)
            for account in self.deeds.accounts():
                self.deeds.move(account)
                if self.partner is None:
                    self._drain()
                else:
                    self._drain_both()
        except Stuck as error:
            self.oracle.fail("hang", str(error))
        except Exception as error:  # noqa: BLE001 - whatever ends a run unexpectedly is a finding
            self.oracle.fail("error", f"{type(error).__name__}: {error}")
            self.oracle.trace.append(traceback.format_exc())
        finally:
            self.oracle.begin()
        self.ending.sends = sum(place.oracle.sends for place in self.deeds.places.values())
        self.ending.requests = sum(place.oracle.requests for place in self.deeds.places.values())
        return self.ending

    def storm(self, *, race: bool = True) -> None:
        """One run under faults; a killed one is started again."""
        self.server.faults = self.scenario.faults
        self.source.change(self.rng.choice((0.1, 0.4, 0.9)))
        if self.rng.random() < 0.1:
            self._jump()
        if (self.setup.index_lag is not None or self.setup.key_life < 86_400) and self.late.random() < 0.3:
            self._jump(self.late)
        self._trade()
        doomed = self.doom(self.rng)
        limit = self.rng.choice((None, None, None, 1, 4))
        if race and self.scenario.races and self.races.random() < 0.7:
            self._race()
        else:
            self.run(RunOptions(limit=limit), doomed, self._meanwhile)
        self._replay()

    def doom(self, rng: random.Random) -> tuple[str, int] | None:
        """The step at which the next run is killed, if it is."""
        if rng.random() >= self.scenario.crash:
            return None
        kind = rng.choice(list(_STEPS))
        return kind, int(rng.random() ** 1.5 * _STEPS[kind] * 1.6)

    def _race(self) -> None:
        self.was_full = self.house.full
        Race(self, self.races).run(self._meanwhile)
        self.house.full = False
        self.pass_time()

    def _jump(self, rng: random.Random | None = None) -> None:
        days = (rng or self.rng).choice((1, -1, 400))
        self.oracle.note("the wall clock jumps by", days, "days")
        self.time.skew += days * 86_400

    def _meanwhile(self, loop: VirtualLoop, run: Run) -> None:
        """What happens while a run is going on."""
        rng = self.rng
        if rng.random() < 0.4:
            loop.call_later(rng.uniform(0, 3), self._change)
        if rng.random() < 0.05:
            loop.call_later(rng.uniform(0, 3), self._jump)
        if rng.random() < 0.08:
            loop.call_later(rng.uniform(0, 3), run.stop)
        if rng.random() < self.scenario.faults.disk:
            start = rng.uniform(0, 2)
            loop.call_later(start, self._disk, True)
            loop.call_later(start + rng.uniform(0.1, 3), self._disk, False)

    def _change(self) -> None:
        self.source.change(0.3)
        self.oracle.note("the source changes")

    def _disk(self, full: bool) -> None:
        self.oracle.note("the disk is", "full" if full else "free again")
        self.house.full = full
        self.was_full = True

    def _replay(self) -> None:
        """A person has all dead letters sent again."""
        if self.rng.random() >= 0.15 or not self.oracle.buried:
            return
        with self.workspace() as workspace:
            scope = self.scope(workspace, self.sync)
            for row in workspace.state.do("dead_letters", {"scope": scope.id, "id": None}) if scope else ():
                workspace.state.do_all("replay_letters", [(row["id"],)])
        self.oracle.replayed()
        self.oracle.note("every dead letter is replayed")

    def workspace(self, sync: str = "", setup: Setup | None = None, **own: Any) -> _Open:
        """A workspace of the first worker; `own` is what another one has of its own."""
        house = own.get("house", self.house)
        beside = self.beside_it or ({PARTNER: self.partner.setup} if self.partner is not None else {})
        project = project_of(setup or self.setup, self.folder, house.folder, sync or self.sync, beside)
        kept = {
            "house": self.house,
            "source": self.source,
            "witness": self.oracle,
            "transport": self._road,
            "account": (setup or self.setup).account,
        } | own
        state = SharedSimState if self.setup.shared else SimState
        return _Open(SimWorkspace(project, self.around, state_class=state, **kept))

    def _road(self, timeout: float) -> Network:
        return Network(self.server, self.oracle, timeout)

    def run(self, options: RunOptions, doomed: tuple[str, int] | None = None, meanwhile: Any = None) -> Any:
        """One run. Returns its report; None where it was killed, or could not even be recorded."""
        self.oracle.begin()
        self.house.doomed = doomed
        self.oracle.note(
            "RUN", options.limit or "", f"killed at {doomed[0]} step {doomed[1]}" if doomed else ""
        )
        self.ending.runs += 1
        self.was_full = self.house.full
        report = None
        try:
            with self.workspace() as workspace:
                report = self._live(workspace, options, meanwhile)
        except Killed:
            pass
        if self.house.dead:
            self.ending.kills += 1
            self.house.restart()
            self.oracle.crashed()
            report = None
        else:
            self.house.doomed, self.house.full = None, False
            self.oracle.after(report, self.ledger(), calm=not self.was_full)
        self.pass_time()
        return report

    def pass_time(self) -> None:
        """Time goes by until nothing is on its way any more."""
        self.time.elapsed += MAX_LATE + 2 * self.setup.timeout + self.rng.choice((0, 0, 60, 4000))
        self.server.catch_up()
        if self.setup.shared and self.moves.random() < 0.4:
            self._move()

    def _live(self, workspace: SimWorkspace, options: RunOptions, meanwhile: Any) -> Any:
        run = Run(workspace, workspace.project.syncs[self.sync], options)
        loop = VirtualLoop(self.time, self.house.rng, lambda: self.house.step("tick"))
        if meanwhile is not None:
            meanwhile(loop, run)
        try:
            report = loop.live(run.execute())
        except BackhaulError as error:
            self.oracle.note("could not run:", error)
            return None
        self.tell(report)
        return report

    def set_up(self, setup: Setup) -> None:
        """From now on the sync is set up so."""
        self.setup = self.server.setup = self.source.setup = self.oracle.setup = setup

    def tell(self, report: RunReport, whose: str = "") -> None:
        self.oracle.note(
            "END", whose, report.status, report.changes, f"delivered {report.delivered} rejected {report.rejected} "
            f"unknown {report.unknown} deferred {report.deferred} pending {report.pending}", report.error or "",
        )  # fmt: skip
        self.ending.changes += sum(report.changes.values())

    def ledger(self, sync: str = "") -> dict[str, tuple[str | None, int]]:
        """By identifier: the acknowledged value (None: in doubt) and the state of every row."""
        if not self.setup.shared:
            file = self._ledger_file(sync or self.sync)
            if file is None:
                return {}
            status = file.stat()
            version = (file, status.st_ino, status.st_size, status.st_mtime_ns)
            if version not in self._ledgers:
                self._ledgers = {version: self._read(Ledger(file))}
            return self._ledgers[version]
        with self.workspace(sync) as workspace:
            scope = self.scope(workspace, sync or self.sync)
            return {} if scope is None else self._read(workspace.ledger_of(scope))

    def _ledger_file(self, sync: str) -> Path | None:
        state = self.house.folder / "state.db"
        if not state.exists():
            return None
        with closing(sqlite3.connect(state)) as database:
            query = "SELECT s.id FROM scopes s JOIN syncs n ON n.id = s.sync WHERE n.name = ? AND s.label = ?"
            rows = database.execute(query, (sync, self.setup.account)).fetchall()
        file = self.house.folder / "ledgers" / f"{rows[0][0] if rows else ''}.duckdb"
        return file if file.exists() else None

    def _read(self, ledger: Any) -> dict[str, tuple[str | None, int]]:
        engine: Any = self.house.engine.engine
        with ledger.reading(engine) as view:
            if view is None or view.empty:
                return {}
            names = list(view.shape["fields"])
            columns = ", ".join(f'"f.{name}"' for name in names)
            rows = engine.execute(
                f"SELECT {columns}, _hash IS NULL, _state FROM _backhaul_ledger.acked"
            ).fetchall()
        records = [
            (dict(zip(names, values, strict=True)), doubtful, state) for *values, doubtful, state in rows
        ]
        return {one["id"]: (None if doubtful else value_of(one), state) for one, doubtful, state in records}

    def scope(self, workspace: SimWorkspace, sync: str) -> Scope | None:
        """What the state calls a sync at the account of today; None where no run came so far."""
        account = workspace.account
        return next((one for one in workspace.scopes.all() if (one.name, one.label) == (sync, account)), None)

    def _move(self) -> None:
        """The next run is another worker's, who has nothing but the state."""
        self.oracle.note("another worker, with an empty disk")
        for name in ("copies", "plans"):
            shutil.rmtree(self.house.folder / name, ignore_errors=True)

    def _drain(self, *, judged: bool = True) -> None:
        """Everything is healthy: the sync comes to rest, and then needs nobody."""
        self.server.faults = Faults()
        rested = False
        for _ in range(_DRAIN):
            self.server.away = rested
            report = self.run(RunOptions())
            well = report is not None and report.status in ("succeeded", "partial")
            if rested:
                quiet = well and not sum(report.changes.values()) and not self.oracle.run_requests
                if quiet or not self.setup.by_email:  # an identifier that changed hands may need one more run
                    self.oracle.expect(
                        quiet, "I7", "a run without changes needed the destination, or failed without it"
                    )
                    if judged:
                        self.oracle.final(self.ledger())
                    return
            rested = (
                well
                and not rested
                and not report.unknown
                and not (report.verified and report.verified.mismatches)
                # what was created after a look-up is looked up once more
                and (self.setup.index_lag is None or not self.oracle.run_requests)
            )
            if report is not None and report.status == "deferred":
                self.time.elapsed += 90_000
        self.oracle.fail("I1", f"not at rest after {_DRAIN} runs without faults")


class _Open:
    """A workspace that is closed in the end."""

    def __init__(self, workspace: SimWorkspace) -> None:
        self.workspace = workspace

    def __enter__(self) -> SimWorkspace:
        return self.workspace

    def __exit__(self, *_: object) -> None:
        self.workspace.close()


def play(seed: int, engine: Engine, folder: Path) -> Ending:
    """Plays one seed in a folder of its own."""
    place = folder / str(seed)
    place.mkdir(parents=True)
    engine.optimises(seed % _OPTIMISED == 0)
    try:
        return Story(scenario_of(seed), engine, place).play()
    finally:
        shutil.rmtree(place, ignore_errors=True)
