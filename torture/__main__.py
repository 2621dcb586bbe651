"""`python -m torture`: kills, stops, races and starves real runs, and says whether every promise was kept.

Exit code 1 where one was broken; the seed and the folder to look at are named.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path
from threading import Event

from torture.arena import DEADLINE, Arena
from torture.figures import QUIET, STORMY, Figures, table, total
from torture.processes import server
from torture.profiles import PROFILES, Profile, Unavailable, over_http
from torture.witness import CALM, STORM

SETTLE_AFTER = 6
"""Rounds between two judgements."""


@dataclass
class Torture:
    """One invocation: what was asked, what has been counted."""

    kills: int
    seconds: float
    seed: int
    folder: Path
    context: ForkServerContext
    figures: dict[str, Figures] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    ended: Event = field(default_factory=Event)
    began: float = field(default_factory=time.monotonic)

    def arena(self, name: str) -> Arena:
        figures = self.figures[name] = Figures()
        rng = random.Random(f"{self.seed}/{name}")
        return Arena(name, self.folder / name, self.context, rng, figures)

    def over(self, figures: Figures, kills: int) -> bool:
        return (
            self.ended.is_set()
            or figures.kills >= kills
            or time.monotonic() - self.began > self.seconds
            or bool(figures.violations)
        )

    def measure(self, name: str) -> None:
        """Amplification without kills: in quiet, or in a storm."""
        arena = self.arena(name)
        with ExitStack() as stack:
            profile = Profile(
                over_http(arena, stack).build(), (undisturbed,), CALM if name == "quiet" else STORM
            )
            if arena.witness is not None:
                arena.witness.faults = profile.storm  # whoever is refused is refused from the beginning
            arena.start().wait(DEADLINE)  # what changes before a first run would be sent once for two changes
            for _ in range(8):
                if self.ended.is_set() or arena.figures.violations:
                    break
                profile.round()
            profile.settle()
        bound = QUIET if name == "quiet" else STORMY
        if arena.figures.amplification > bound:
            arena.figures.violation(
                name, f"{arena.figures.amplification:.2f} records sent a change, more than {bound}"
            )

    def torment(self, name: str, kills: int) -> None:
        """One profile until it has its kills or the time is up."""
        arena = self.arena(name)
        with ExitStack() as stack:
            try:
                profile = PROFILES[name](arena, stack)
            except Unavailable as reason:
                self.skipped.append(f"{name}: {reason}")
                del self.figures[name]
                return
            while not self.over(arena.figures, kills):
                for _ in range(SETTLE_AFTER):
                    if self.over(arena.figures, kills):
                        break
                    profile.round()
                profile.settle()

    def guarded(self, name: str, kills: int) -> None:
        try:
            if name in ("quiet", "stormy"):
                self.measure(name)
            else:
                self.torment(name, kills)
        except Exception as error:  # noqa: BLE001 - whatever it is, the verdict has to tell of it
            self.figures[name].violation(name, f"the test itself failed: {type(error).__name__}: {error}")


def undisturbed(arena: Arena, _: float) -> None:
    """A change, and a run to its end."""
    arena.change(arena.rng.choice((0.1, 0.5)))
    process = arena.start()
    if process.wait(120) is None:
        process.kill()
        arena.figures.violation(arena.name, "a run that nothing disturbed did not end")


def main() -> int:
    given = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="backhaul-torture-", dir=given.dir))
    folder.chmod(0o755)  # the user that PostgreSQL runs as has to get in
    torture = Torture(given.kills, given.seconds, given.seed, folder, server())
    names = given.only or ["quiet", "stormy", *PROFILES]
    print(f"seed {given.seed}, in {folder}", file=sys.stderr, flush=True)
    interrupted = False
    each = -(-given.kills // max(len([name for name in names if name in PROFILES]), 1))
    with ThreadPoolExecutor(given.jobs) as pool:
        tasks = [pool.submit(torture.guarded, name, each) for name in names]
        try:
            while not all(task.done() for task in tasks):
                time.sleep(0.2)
                show(torture)
        except KeyboardInterrupt:
            interrupted = True
            torture.ended.set()
            for task in tasks:
                task.cancel()
            print("\nending: what is running is judged first", file=sys.stderr, flush=True)
    return verdict(torture, interrupted, given.keep)


def show(torture: Torture) -> None:
    if sys.stderr.isatty():
        now = total(list(torture.figures.values()))
        gone = time.monotonic() - torture.began
        said = f"\r{gone:5.0f} s  {now.kills:,} kills, {now.runs:,} runs, {len(now.violations)} violations "
        print(said, end="", file=sys.stderr, flush=True)


def verdict(torture: Torture, interrupted: bool, keep: bool) -> int:
    found = total(list(torture.figures.values()))
    seconds = time.monotonic() - torture.began
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(table(torture.figures))
    for reason in torture.skipped:
        print(f"left out: {reason}")
    for line in found.violations:
        print(f"VIOLATION  {line}")
    again = f"seed {torture.seed}"
    if found.violations:
        print(f"torture: FAILED, {len(found.violations)} violations; {again}, to look at: {torture.folder}")
        return 1
    if not keep:
        shutil.rmtree(torture.folder, ignore_errors=True)
    how = "interrupted, nothing broken so far" if interrupted else "every promise kept"
    print(f"torture: {how}: {found.kills:,} kills in {found.runs:,} runs, {found.lost} lost, {found.duplicates} created twice, "
          f"{found.needless} sent without need, {found.windows} windows exceeded ({seconds:.0f} s, {again})")  # fmt: skip
    return 130 if interrupted else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=60, help="kill -9 in all, shared by the profiles (default 60)"
    )
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="end after so long, with what was counted"
    )
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(1 << 31), help="of every choice made here"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=["quiet", "stormy", *PROFILES],
        help="only this profile; may be repeated",
    )
    parser.add_argument("--jobs", type=int, default=2, help="profiles at a time (default 2)")
    parser.add_argument("--dir", type=Path, help="where projects are made")
    parser.add_argument("--keep", action="store_true", help="keep the folder also where nothing was broken")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
