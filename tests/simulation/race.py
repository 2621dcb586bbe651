"""Two workers at the same time: each has a process, an event loop and an embedded engine of its own, and the network a third
loop, so that one worker may stop while what it had sent goes on. The seed decides whose turn it is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any

from backhaul.errors import BackhaulError
from backhaul.runs.report import RunOptions
from backhaul.runs.run import Run

from .house import House, Neighbour
from .oracle import Oracle
from .scenario import Faults, Setup, Source
from .server import Network, Request, Server
from .timing import Stuck, VirtualLoop

if TYPE_CHECKING:
    from .story import Story

_SLEEPS = (0.3, 4.0, 20.0, 70.0, 70.0, 150.0)
"""Seconds for which a worker is stopped."""
_LONG = 15.0
"""Seconds of sleep after which somebody else may have taken over."""
_TRIES = 20
OTHER = "t"
"""The sync that draws on the same credential."""


@dataclass
class Line:
    """One sync: its model, its part of the destination, and who judges it."""

    sync: str
    setup: Setup
    source: Source
    server: Server
    oracle: Oracle
    owner: Worker | None = None
    """Who was the last to say that the sync is its own."""


@dataclass
class Worker:
    """One process."""

    house: House
    line: Line
    loop: VirtualLoop
    task: asyncio.Task[Any] | None = None
    asleep: float = -inf
    """Until when it is stopped, in true time."""
    slept: float = 0.0
    """Its longest stop."""
    judged: bool = False
    network: list[Network] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.task is None or self.task.done()

    def due(self) -> float:
        return inf if self.done else max(self.loop.due(), self.asleep)

    @property
    def report(self) -> Any:
        return self.task.result() if self.task is not None and self.task.done() else None


class Road(Network):
    """The way of one worker's requests: they go on where the worker has stopped."""

    def __init__(self, race: Race, worker: Worker, timeout: float) -> None:
        super().__init__(worker.line.server, Watch(race, worker), timeout)
        self.race = race

    async def exchange(self, *given: Any, **named: Any) -> Any:
        await asyncio.sleep(self.race.rng.choice((0.0, 0.01, 0.2)))  # a connection is made
        return await super().exchange(*given, **named)

    async def _carry(self, request: Request) -> Any:
        here = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = here.create_future()
        there = self.race.world.create_task(super()._carry(request))
        there.add_done_callback(lambda done: here.call_soon(_hand_over, done, answer))
        try:
            return await answer
        except asyncio.CancelledError:
            there.cancel()
            raise


def _hand_over(done: asyncio.Task[Any], answer: asyncio.Future[Any]) -> None:
    if answer.done() or done.cancelled():
        return
    if error := done.exception():
        answer.set_exception(error)
    else:
        answer.set_result(done.result())


@dataclass
class Watch:
    """What one worker does, as the oracle hears of it: who does not own the sync says nothing that counts."""

    race: Race
    worker: Worker

    @property
    def oracle(self) -> Oracle:
        return self.worker.line.oracle

    @property
    def owns(self) -> bool:
        return self.worker.line.owner is self.worker

    def number(self) -> int:
        return self.race.story.oracle.number()

    def reads(self) -> None:
        self._expect("reads the model")
        self.oracle.reads()

    def departs(self, request: Request) -> None:
        self._expect(f"sends request {request.number}")
        self.oracle.departs(request)

    def ends(self, request: Request, end: Any) -> None:
        if self.owns:
            self.oracle.ends(request, end)

    def vanishes(self, request: Request) -> None:
        if self.owns:
            self.oracle.vanishes(request)

    def _expect(self, what: str) -> None:
        house = self.worker.house
        self.oracle.expect(self.owns, "I26", f"the {house.name} worker {what}, and another one has the sync")


class Race:
    """The runs of two workers that begin about the same time."""

    def __init__(self, story: Story, rng: random.Random) -> None:
        self.story, self.rng = story, rng
        self.world = self._loop()
        setup = story.setup
        self.line = Line(story.sync, setup, story.source, story.server, story.oracle)
        self.first = Worker(story.house, self.line, self._loop())
        beside = self._beside() if story.scenario.races == "beside" else self.line
        house = Neighbour(
            story.time, story.house.rng, story.folder, story.house.engine.twin, name="second", of=story.house, apart=setup.shared
        )  # fmt: skip
        self.second = Worker(house, beside, self._loop())

    def _loop(self) -> VirtualLoop:
        return VirtualLoop(self.story.time, self.story.house.rng, lambda: None)

    def _beside(self) -> Line:
        """Another sync of the same credential; what is kept of it is kept by the story."""
        story = self.story
        if story.beside is None:
            mode = self.rng.choice(("upsert", "mirror"))
            setup = replace(
                story.setup, mode=mode, by_email=False, cursor=False, priority=self.rng.choice((0, 1))
            )
            server = Server(setup, story.time, self.rng)
            source = Source(self.rng, setup, self.rng.choice((5, 20)))
            story.beside = Line(
                OTHER, setup, source, server, Oracle(story.house, server, source, setup, OTHER, story.oracle)
            )
        story.beside.owner = None
        story.beside.source.change(0.5)
        story.beside.server.faults = story.server.faults if self.rng.random() < 0.5 else Faults()
        return story.beside

    @property
    def workers(self) -> tuple[Worker, Worker]:
        return self.first, self.second

    def run(self, meanwhile: Callable[[VirtualLoop, Run], None]) -> None:
        """Both, to the end of both; then the oracle has seen what they left."""
        story = self.story
        story.oracle.note("RACE", story.scenario.races)
        self._start(self.first, self._execute(self.first, RunOptions(), meanwhile))
        self._start(self.second, self._later())
        for _ in range(self.rng.choice((0, 1, 1, 2))):
            self.world.call_later(self.rng.random() ** 2 * 3.0, self._stop_one)
        try:
            while not all(worker.done for worker in self.workers):
                self._turn()
        finally:
            for loop in (self.first.loop, self.second.loop, self.world):
                loop.bury()
                loop.close()
        for worker in self.workers:
            self._judge(worker)
        story.oracle.house = story.house

    def _start(self, worker: Worker, work: Coroutine[Any, Any, Any]) -> None:
        worker.task = worker.loop.create_task(work)

    def _turn(self) -> None:
        """Whoever is due next has a turn."""
        time = self.story.time
        dues = [(worker.due(), worker.loop) for worker in self.workers] + [(self.world.due(), self.world)]
        first = min(due for due, _ in dues)
        if first == inf:
            raise Stuck("nobody has anything to do")
        time.elapsed = max(time.elapsed, first)
        self.rng.choice([loop for due, loop in dues if due <= time.elapsed]).turn()

    def _stop_one(self) -> None:
        """A worker is stopped, as by SIGSTOP, and goes on later as if nothing had been."""
        awake = [
            worker for worker in self.workers if not worker.done and worker.asleep <= self.story.time.elapsed
        ]
        if awake:
            worker = self.line.owner if self.line.owner in awake else self.rng.choice(awake)
            seconds = self.rng.choice(_SLEEPS)
            worker.asleep = self.story.time.elapsed + seconds
            worker.slept, worker.house.woke = max(worker.slept, seconds), worker.asleep
            self.story.oracle.forgets_holds(worker.house)
            self.story.oracle.note(f"the {worker.house.name} worker is stopped for {seconds} s")

    async def _later(self) -> Any:
        """The second worker: begins later, and where the first has the sync tries again as long as that one goes on."""
        await asyncio.sleep(self.rng.uniform(0, 2))
        for _ in range(_TRIES):
            if self.first.done and self.line is self.second.line:
                return None
            report = await self._execute(self.second, RunOptions())
            if report is not None or self.second.line.owner is self.second:
                return report
            await asyncio.sleep(self.rng.uniform(1, 15))
        return None

    async def _execute(self, worker: Worker, options: RunOptions, meanwhile: Any = None) -> Any:
        """One run. Gives its report; None where there is none."""
        story = self.story
        story.ending.runs += 1
        with story.workspace(worker.line.sync, worker.line.setup, **self._own(worker)) as workspace:
            run = Run(workspace, workspace.project.syncs[worker.line.sync], options)
            if meanwhile is not None:
                meanwhile(worker.loop, run)
            try:
                report = await run.execute()
            except BackhaulError as error:
                story.oracle.note(f"the {worker.house.name} worker could not run:", error)
                return None
        story.tell(report, f"of the {worker.house.name} worker")
        return report

    def _own(self, worker: Worker) -> dict[str, Any]:
        """What is a worker's own of its workspace."""
        return {
            "transport": lambda timeout: Road(self, worker, timeout), "house": worker.house, "source": worker.line.source,
            "witness": Watch(self, worker), "account": worker.line.setup.account, "on_lease": lambda: self._owns(worker),
        }  # fmt: skip

    def _owns(self, worker: Worker) -> None:
        """The state has given the worker its sync."""
        line, before = worker.line, worker.line.owner
        line.oracle.note(f"the {worker.house.name} worker has {line.sync}")
        if before is not None:
            self._check_takeover(worker, before)
            line.oracle.crashed()
            line.oracle.in_flight.clear()
        line.owner, line.oracle.house = worker, worker.house
        line.oracle.begin()

    def _check_takeover(self, worker: Worker, before: Worker) -> None:
        """Only from who is done or has not moved, and when nothing can be on its way any more."""
        oracle, now = worker.line.oracle, self.story.time.elapsed
        free = before.done or before.slept >= _LONG
        oracle.expect(free, "I26", f"the {worker.house.name} worker runs a sync that another one runs")
        flying = [
            request.number
            for request in oracle.in_flight.values()
            if now < request.left + self.story.setup.timeout
        ]
        oracle.expect(not flying, "I26", f"requests {flying} of another worker may be on their way")

    def _judge(self, worker: Worker) -> None:
        """A run has ended by itself; what the owner of a sync leaves is looked at once."""
        if worker.judged or worker.line.owner is not worker:
            return
        worker.judged = True
        worker.line.server.catch_up()
        calm = worker.slept < _LONG and not self.story.was_full
        worker.line.oracle.after(worker.report, self.story.ledger(worker.line.sync), calm=calm)
