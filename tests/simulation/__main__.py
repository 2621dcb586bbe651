"""`python -m tests.simulation SEED` plays one seed and prints what happened; `--seeds COUNT` plays many, from 0 or from
`--from`; `--mutants` lets every mutant of the engine loose and says which promise gave it away."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .mutants import MUTANTS, SEEDS, Mutant, install

if TYPE_CHECKING:
    from .story import Ending

PATIENCE = 400
"""Seeds after which a mutant that is looked at alone has got away."""
_GLANCE = 40
"""Seeds after which one of all has: the seed that gave it away before mostly does so again."""
_CHUNK = 20
"""Seeds that a process takes at once."""
_MINUTE = 60.0
_SETTINGS = {
    "PYTHONHASHSEED": "0",
    # the engine makes and drops millions of small things: memory that is given back is asked for again at once
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=65535:glibc.malloc.trim_threshold=268435456:"
    "glibc.malloc.top_pad=67108864:glibc.malloc.mmap_threshold=268435456",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--seeds", type=int, help="how many")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="SEED", help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mutants", action="store_true")
    parser.add_argument("--mutant", choices=[mutant.name for mutant in MUTANTS])
    given = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in _SETTINGS.items()):
        line = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, line, {**os.environ, **_SETTINGS})
    if given.mutants:
        return hunt(given.processes)
    if given.mutant:
        mutant = next(mutant for mutant in MUTANTS if mutant.name == given.mutant)
        if given.seed is None:
            return report(mutant, look(mutant, PATIENCE))
        install(mutant)
    if given.seed is not None:
        return one(given.seed)
    return many(range(given.first, given.first + (given.seeds or 200)), given.processes)


@contextmanager
def stage() -> Iterator[tuple[Any, Path]]:
    """An engine, and a folder in memory where there is one."""
    from .house import new_engine

    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="bh-sim-", dir=memory if memory.is_dir() else None) as folder:
        yield new_engine(Path(folder) / "spill"), Path(folder)


def one(seed: int) -> int:
    """Prints the whole story of a seed."""
    from .scenario import scenario_of

    print(scenario_of(seed))
    ending = chunk(range(seed, seed + 1))[0]
    print("\n".join(ending.trace))
    for violation in ending.violations:
        print(f"VIOLATION {violation.rule} at {violation.at:.3f}: {violation.what}")
    return 1 if ending.violations else 0


def chunk(seeds: range, told: bool = True) -> list[Ending]:
    """`told`: with everything that happened; else only with what broke."""
    from .story import play

    gc.disable()
    with stage() as (engine, folder):
        endings = [play(seed, engine, folder) for seed in seeds]
    gc.collect()
    for ending in endings:
        ending.trace = ending.trace if told else []
    return endings


def quietly(seeds: range) -> list[Ending]:
    return chunk(seeds, told=False)


def many(seeds: range, processes: int) -> int:
    """Plays seeds in several processes; of those that fail says how, and how to see the rest."""
    score = Score(len(seeds))
    chunks = [seeds[at : at + _CHUNK] for at in range(0, len(seeds), _CHUNK)]
    with ProcessPoolExecutor(processes) as pool:
        for endings in pool.map(quietly, chunks):
            for ending in endings:
                score.add(ending)
            score.every_minute()
    print(f"{len(seeds)} seeds, {score.broken} broke a promise {dict(score.rules) or ''}")
    print(f"{score.seconds:.1f} s, {score.pace:.0f} seeds a minute; {dict(score.totals)}")
    return 1 if score.broken else 0


class Score:
    """What has become of many seeds so far."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.played, self.broken = wanted, 0, 0
        self.rules: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self._began = self._said = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    @property
    def pace(self) -> float:
        """Seeds a minute."""
        return self.played / self.seconds * 60

    def add(self, ending: Ending) -> None:
        self.played += 1
        self.totals.update(ending.figures)
        if ending.violations:
            self.broken += 1
            first = ending.violations[0]
            self.rules[first.rule] += 1
            print(f"{first.rule}: {first.what}\n    python -m tests.simulation {ending.seed}", flush=True)

    def every_minute(self) -> None:
        if time.perf_counter() - self._said < _MINUTE:
            return
        self._said = time.perf_counter()
        print(
            f"{self.played} of {self.wanted} seeds, {self.totals['runs']} runs, {self.totals['kills']} kills, "
            f"{self.broken} broken, {self.pace:.0f} seeds a minute",
            flush=True,
        )


def look(mutant: Mutant, patience: int) -> tuple[str, int, int]:
    """Lets a mutant loose in this process: (promise that gave it away, seeds needed, seed); no promise where it got away."""
    install(mutant)
    from .scenario import scenario_of
    from .story import play

    gc.disable()
    played = 0
    with stage() as (engine, folder):
        for seed in [*SEEDS.get(mutant.name, ()), *range(patience * 20)]:
            if not mutant.needs(scenario_of(seed)):
                continue
            played += 1
            ending = play(seed, engine, folder)
            if ending.violations:
                return ending.violations[0].rule, played, seed
            if played >= patience:
                break
    return "", played, -1


def look_at(number: int) -> tuple[str, int, int]:
    return look(MUTANTS[number], _GLANCE)


def report(mutant: Mutant, found: tuple[str, int, int]) -> int:
    rule, played, seed = found
    print(f"| {mutant.name} | {rule or 'nothing'} | {seed if rule else '-'} | {played} |", flush=True)
    return 0 if rule else 1


def hunt(processes: int) -> int:
    """Every mutant in a process of its own, which has the libraries already and nothing of ours; prints a table."""
    import aiohttp  # noqa: F401
    import duckdb  # noqa: F401
    import pyarrow as pa  # noqa: F401
    import pydantic  # noqa: F401
    import sqlglot

    sqlglot.parse_one("1", read="duckdb")
    print("| mutant | given away by | seed | seeds played |\n| --- | --- | --- | --- |")
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
        away = sum(
            report(mutant, found)
            for mutant, found in zip(
                MUTANTS, pool.imap(look_at, range(len(MUTANTS)), chunksize=1), strict=True
            )
        )
    print(f"{len(MUTANTS)} mutants, {away} got away")
    return 1 if away else 0


if __name__ == "__main__":
    raise SystemExit(main())
