"""Ways to torture: each builds its arena, and disturbs it one round at a time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backhaul.testing.serving import serving
from backhaul.testing.sink import Faults
from torture.arena import RESULTS, Arena
from torture.processes import idle
from torture.witness import CALM, STORM, Witness

POSTGRES = Path(__file__).parent.parent / "scripts" / "postgres"
LEASE = 2.0
WINDOW = 40


class Unavailable(Exception):
    """This machine cannot do this profile; says why."""


def api(url: str, **more: Any) -> dict[str, Any]:
    """A destination of type http with one object `users`."""
    write = {"batch_size": 20, "results": RESULTS}
    user = {
        "key": "id",
        "upsert": {"request": "POST /upsert", "body": {"records": "$records"}, **write},
        "insert": {"request": "POST /insert", "body": {"records": "$records"}, **write},
        "delete": {"request": "POST /delete", "body": {"ids": "$keys"}, **write},
        "read": {"request": "POST /read", "body": {"ids": "$keys"}, "each": "results", "key": "id"},
    }
    return {
        "type": "http",
        "base_url": url,
        "concurrency": 8,
        "timeout": "10s",
        "objects": {"users": user},
    } | more


@contextmanager
def database(folder: Path) -> Iterator[str]:
    """A PostgreSQL server that may be restarted."""
    started = subprocess.run([POSTGRES, "start", folder], capture_output=True, text=True)
    if started.returncode:
        raise Unavailable(f"no PostgreSQL: {started.stderr.strip()[-200:]}")
    try:
        yield started.stdout.strip()
    finally:
        subprocess.run([POSTGRES, "stop", folder], check=False, capture_output=True)


def restart(arena: Arena, folder: Path, while_down: float) -> None:
    """Stops the server at once, as a crash would, and starts it again."""
    subprocess.run([POSTGRES, "stop", folder], check=True, capture_output=True)
    idle(while_down)
    subprocess.run([POSTGRES, "start", folder], check=True, capture_output=True)
    arena.figures.restarts += 1


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 32 MiB at a folder."""
    if os.geteuid() != 0:
        raise Unavailable("mounting a small file system needs root")
    folder.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode:
        raise Unavailable(f"no small file system can be mounted: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


def kill_once(arena: Arena, length: float) -> None:
    """One run, killed at a random moment; the model may change under it."""
    rng = arena.rng
    arena.change(rng.choice((0.02, 0.1, 0.5)))
    process = arena.start()
    moment = rng.random() * length
    if rng.random() < 0.2:
        process.wait(moment / 2)
        arena.change(0.02)
        moment /= 2
    if rng.random() < 0.15:
        process.wait(moment)
        process.stop()
        arena.figures.stops += 1
        if arena.witness is not None:
            arena.witness.excuse(())  # who waited for an answer may find his time over when he wakes
        idle(rng.random() * 0.3)
        process.go_on()
    process.wait(moment)
    arena.figures.kills += process.kill()
    arena.excuse()


def race(arena: Arena, length: float) -> None:
    """Two workers for each sync at once, each killed at its own moment or left to end."""
    arena.change(arena.rng.choice((0.02, 0.1)))
    racers = [arena.start(name) for name in arena.names for _ in range(2)]
    for process in racers:
        process.wait(arena.rng.random() * length)
        if arena.rng.random() < 0.7:
            arena.figures.kills += process.kill()
            arena.excuse()
    for process in racers:
        if process.wait(30) is None:
            arena.figures.kills += process.kill()
            arena.excuse()


def fill_disk(arena: Arena, length: float) -> None:
    """A run on a disk with hardly any room left."""
    arena.change(0.3)
    folder = arena.root / ".backhaul"
    ballast = folder / "ballast"
    room = os.statvfs(folder)
    leave = arena.rng.choice((0, 4096, 16_384, 65_536, 262_144, 1 << 20))
    with ballast.open("wb") as file:
        for _ in range(max(room.f_bavail * room.f_frsize - leave, 0) // 4096):
            file.write(b"\0" * 4096)
    arena.figures.full += 1
    process = arena.start()
    process.wait(arena.rng.random() * length)
    arena.figures.kills += process.kill()
    ballast.unlink()
    arena.excuse()


def outlive_lease(arena: Arena, length: float) -> None:
    """A worker is stopped past its lease while another takes over; then it wakes."""
    arena.change(0.3)
    first = arena.start()
    first.wait(arena.rng.random() * length)
    first.stop()
    arena.figures.stops += 1
    arena.excuse()
    idle(LEASE + 1.2)
    other = arena.start()
    ended = other.wait(30) is not None
    sent = len(arena.witness.seen) if arena.witness else 0
    first.go_on()
    first.wait(10)
    more = len(arena.witness.seen) - sent if arena.witness else 0
    if ended and more:
        arena.figures.violation(arena.name, f"a worker that woke past its lease sent {more} requests")
    arena.figures.kills += first.kill() + other.kill()
    arena.excuse()


Round = Callable[[Arena, float], None]


@dataclass
class Profile:
    """An arena and its ways to be disturbed. `length`: seconds within which a kill comes."""

    arena: Arena
    rounds: tuple[Round, ...]
    storm: Faults = field(default_factory=lambda: STORM)
    length: float = 1.0

    def round(self) -> None:
        if self.arena.witness is not None:
            self.arena.witness.faults = self.storm
        self.arena.rng.choice(self.rounds)(self.arena, self.length)

    def settle(self) -> None:
        """Faults end; the destination has to become the model."""
        witness = self.arena.witness
        if witness is not None:
            witness.faults = replace(CALM, refuse=self.storm.refuse)
        if self.arena.converge():
            self.arena.judge()
        if self.arena.syncs > 1 and witness is not None:
            times = [seen.at for seen in witness.seen]
            over = busiest(times, 0.8) - WINDOW
            if over > 0:
                self.arena.figures.windows += 1
                self.arena.figures.violation(self.arena.name, f"{over} requests over {WINDOW}/1s")
            witness.seen.clear()


def busiest(times: list[float], length: float) -> int:
    """The most requests in any stretch of this length: shorter than the limit's, as what left in time may arrive bunched."""
    begin, most = 0, 0
    for end, at in enumerate(times):
        while at - times[begin] >= length:
            begin += 1
        most = max(most, end - begin + 1)
    return most


def over_http(arena: Arena, stack: ExitStack, **more: Any) -> Arena:
    """Gives the arena a witness and its address."""
    witness = arena.witness = Witness(seed=arena.rng.randrange(1 << 30), appends=arena.mode == "insert")
    arena.destination = api(stack.enter_context(serving(witness.app())), **more)
    return arena


def calm(arena: Arena, stack: ExitStack) -> Profile:
    """No faults but the kills."""
    return Profile(over_http(arena, stack).build(), (kill_once,), CALM)


def storm(arena: Arena, stack: ExitStack) -> Profile:
    return Profile(over_http(arena, stack).build(), (kill_once,))


def insert(arena: Arena, stack: ExitStack) -> Profile:
    """Creates with an idempotency key, into a destination that makes a second record of anything else."""
    arena.mode = "insert"
    over_http(arena, stack, idempotency_header="Idempotency-Key")
    return Profile(arena.build(), (kill_once,), replace(STORM, refuse=0.0, omit=0.0))


def several(arena: Arena, stack: ExitStack) -> Profile:
    """Three syncs that share one credential and its window, two workers for each."""
    arena.syncs, arena.rows = 3, 200
    over_http(arena, stack, rate_limits=[f"{WINDOW}/1s"])
    return Profile(arena.build(), (race,), length=1.5)


def full_disk(arena: Arena, stack: ExitStack) -> Profile:
    stack.enter_context(small_disk(arena.root / ".backhaul"))
    return Profile(over_http(arena, stack).build(), (fill_disk, kill_once), CALM, 1.5)


def shared_state(arena: Arena, stack: ExitStack) -> Profile:
    """The state in PostgreSQL, which is restarted; workers stopped past their lease."""
    folder = arena.root / "server"
    folder.mkdir(parents=True)
    arena.state = stack.enter_context(database(folder))
    arena.settings = {"lease": f"{LEASE:g}s"}
    over_http(arena, stack, timeout="1s")

    def restarted(arena: Arena, length: float) -> None:
        arena.change(0.3)
        process = arena.start()
        process.wait(arena.rng.random() * length)
        restart(arena, folder, 0.1)
        arena.excuse()
        process.wait(5)
        arena.figures.kills += process.kill()
        arena.excuse()

    return Profile(
        arena.build(),
        (kill_once, kill_once, kill_once, kill_once, race, outlive_lease, restarted),
        length=1.5,
    )


def into_postgres(arena: Arena, stack: ExitStack) -> Profile:
    """PostgreSQL as the destination, restarted."""
    import psycopg

    folder = arena.root / "server"
    folder.mkdir(parents=True)
    dsn = stack.enter_context(database(folder))
    arena.destination = {"type": "postgres", "dsn": dsn}
    with psycopg.connect(dsn) as db:
        db.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text, score double precision)")

    def restarted(arena: Arena, length: float) -> None:
        arena.change(0.5)
        process = arena.start()
        process.wait(arena.rng.random() * length)
        restart(arena, folder, arena.rng.random())
        process.wait(10)
        arena.figures.kills += process.kill()

    return Profile(arena.build(), (kill_once, kill_once, kill_once, kill_once, restarted))


PROFILES: dict[str, Callable[[Arena, ExitStack], Profile]] = {
    "calm": calm, "storm": storm, "insert": insert, "several": several, "full-disk": full_disk,
    "shared-state": shared_state, "postgres": into_postgres,
}  # fmt: skip
"""By name, in the order in which they are run."""
