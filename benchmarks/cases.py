"""What is measured, each beside its bound or its rival in the same run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.measure import (
    BACKHAUL,
    Failed,
    Took,
    bare,
    middle,
    postgres,
    run_sync,
    run_together,
    sink,
    timed,
)
from benchmarks.projects import duckdb_file, forget, http, ledger, make_project, postgres_dsn
from benchmarks.rival import NAME, Drt

GIB = 1 << 30
CHANGED = 200


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    measured: str
    bound: str
    ratio: str
    peak: int
    ok: bool


@dataclass(frozen=True)
class Settings:
    """`rows`: of the large cases; others scale with it. `folder` is empty and large enough."""

    folder: Path
    rows: int = 5_000_000
    repeat: int = 5

    def scaled(self, rows: int) -> int:
        return max(rows * self.rows // 5_000_000, 10_000)


def show_help(settings: Settings) -> Iterator[Row]:
    seconds, peak = middle([timed(BACKHAUL, "--help") for _ in range(settings.repeat)])
    yield Row("`backhaul --help`", f"{seconds:.2f} s", "0.30 s", f"{seconds / 0.3:.2f}", peak, seconds < 0.3)


def warm(settings: Settings) -> Iterator[Row]:
    """A warm ledger: 200 changes, then none, beside the bare join that finds the 200."""
    rows, source = settings.rows, settings.folder / "warm.duckdb"
    bare("make_duckdb", source, rows)
    joins: list[float] = []
    runs: dict[int, list[Took]] = {CHANGED: [], 0: []}
    with sink() as target:
        project = make_project(settings.folder / "warm", duckdb_file(source), http(target.url, 100))
        timed(BACKHAUL, "baseline", "customers", "--project", str(project), "--quiet")
        for turn in range(settings.repeat):
            bare("change", source, rows, CHANGED, turn)
            _, found = bare("join", source, ledger(project))
            if found["rows"] != CHANGED:
                raise Failed(f"the bare join found {found['rows']} differences instead of {CHANGED}")
            joins.append(found["seconds"])
            for changes, took in runs.items():
                before = target.requests()
                done, report = run_sync(project)
                if (report["delivered"], target.requests() - before) != (changes, -(-changes // 100)):
                    raise Failed(
                        f"{changes} changes: {report['delivered']} delivered, {target.requests() - before} requests"
                    )
                took.append(done)
    bound = 2.5 * median(joins) + 0.5
    for changes, took in runs.items():
        seconds, peak = middle(took)
        said = f"{changes} changed" if changes else "nothing changed, no request"
        yield Row(f"{rows:,} rows in DuckDB, {said}", f"{seconds:.2f} s", f"{bound:.2f} s (2.5 × bare join {median(joins):.2f} s + 0.5 s)",
                  f"{seconds / bound:.2f}", peak, seconds <= bound and peak < GIB)  # fmt: skip


def first(settings: Settings) -> Iterator[Row]:
    """A first sync over HTTP, in batches of 1,000 and of 100."""
    rows, source = settings.scaled(1_000_000), settings.folder / "first.duckdb"
    bare("make_duckdb", source, rows)
    runs: dict[int, list[Took]] = {1_000: [], 100: []}
    with sink() as target:
        projects = {
            batch: make_project(
                settings.folder / f"first-{batch}", duckdb_file(source), http(target.url, batch)
            )
            for batch in runs
        }
        for _ in range(settings.repeat):
            for batch, took in runs.items():
                forget(projects[batch])
                before = target.requests()
                took.append(run_sync(projects[batch])[0])
                if target.requests() - before != -(-rows // batch):
                    raise Failed(f"{target.requests() - before} requests instead of {-(-rows // batch)}")
    for batch, least in ((1_000, 300_000), (100, 150_000)):
        seconds, peak = middle(runs[batch])
        rate = rows / seconds
        yield Row(f"first sync of {rows:,} rows to HTTP, batches of {batch:,}", f"{rate:,.0f} rows/s", f"{least:,} rows/s",
                  f"{rate / least:.2f}", peak, rate >= least)  # fmt: skip


def journal(settings: Settings) -> Iterator[Row]:
    """A first sync with and without the journal, in turn."""
    rows, source = settings.scaled(1_000_000), settings.folder / "journal.duckdb"
    bare("make_duckdb", source, rows)
    without = (sys.executable, "-m", "benchmarks.unjournaled")
    for batch in (1_000, 100):
        took: dict[bool, list[Took]] = {True: [], False: []}
        with sink() as target:
            project = make_project(
                settings.folder / f"journal-{batch}", duckdb_file(source), http(target.url, batch)
            )
            for turn in range(2 * settings.repeat):
                forget(project)
                journaled = turn % 4 in (0, 3)
                took[journaled].append(run_sync(project, *(() if journaled else without))[0])
        (ours, peak), (bare_seconds, _) = middle(took[True]), middle(took[False])
        cost = 1 - bare_seconds / ours
        yield Row(f"the journal's share in a first sync of {rows:,} rows, batches of {batch:,}", f"{rows / ours:,.0f} rows/s",
                  f"90% of {rows / bare_seconds:,.0f} rows/s (journal off)", f"{1 - cost:.2f}", peak, cost <= 0.1)  # fmt: skip


def into_postgres(settings: Settings) -> Iterator[Row]:
    rows, source, file = (
        settings.scaled(1_000_000),
        settings.folder / "into.duckdb",
        settings.folder / "into.csv",
    )
    bare("make_duckdb", source, rows)
    bare("make_csv", source, file)
    ours: list[Took] = []
    rival: list[Took] = []
    with postgres(settings.folder / "into-server") as dsn:
        project = make_project(settings.folder / "into", duckdb_file(source), postgres_dsn(dsn))
        for _ in range(settings.repeat):
            bare("make_postgres", dsn)
            rival.append(bare("upsert", dsn, file)[0])
            bare("make_postgres", dsn)
            forget(project)
            ours.append(run_sync(project)[0])
    yield _beside(
        f"first sync of {rows:,} rows into PostgreSQL", rows, ours, rival, "bare COPY + INSERT … ON CONFLICT"
    )


def from_postgres(settings: Settings) -> Iterator[Row]:
    rows, source, file = settings.rows, settings.folder / "from.duckdb", settings.folder / "from.csv"
    bare("make_duckdb", source, rows)
    bare("make_csv", source, file)
    ours: list[Took] = []
    rival: list[Took] = []
    with postgres(settings.folder / "from-server") as dsn, sink() as target:
        bare("make_postgres", dsn, file)
        project = make_project(settings.folder / "from", postgres_dsn(dsn), http(target.url, 1_000))
        timed(BACKHAUL, "baseline", "customers", "--project", str(project), "--quiet")
        for _ in range(settings.repeat):
            rival.append(bare("adbc", dsn)[0])
            ours.append(run_sync(project)[0])
        if target.requests():
            raise Failed("runs without a change sent requests")
    yield _beside(f"{rows:,} rows read from PostgreSQL, nothing changed", rows, ours, rival, "bare ADBC read")


def rival(settings: Settings) -> Iterator[Row]:
    """drt-core at its fastest setting on the same rows and the same sink, in requests of 100 records; in turn, at three
    sizes."""
    for rows in (20_000, 100_000, 500_000):
        source, folder = settings.folder / f"rival-{rows}.duckdb", settings.folder / f"drt-{rows}"
        bare("make_duckdb", source, rows)
        folder.mkdir()
        drt = Drt(folder)
        ours: list[Took] = []
        theirs: list[Took] = []
        with sink() as target:
            drt.prepare(source, target.url)
            project = make_project(
                settings.folder / f"rival-{rows}", duckdb_file(source), http(target.url, 100)
            )
            for _ in range(settings.repeat):
                before = target.requests()
                theirs += drt.runs(1)
                if target.requests() - before != rows // 100:
                    raise Failed(
                        f"{NAME} sent {target.requests() - before} requests instead of {rows // 100}"
                    )
                forget(project)
                ours.append(run_sync(project)[0])
        seconds, peak = middle(ours)
        rate, other = rows / seconds, rows / middle(theirs)[0]
        yield Row(f"first sync of {rows:,} rows to HTTP, requests of 100, beside {NAME} at its fastest setting", f"{rate:,.0f} rows/s",
                  f"{other:,.0f} rows/s ({NAME})", f"{rate / other:.1f}", peak, rate >= other)  # fmt: skip


def commands(settings: Settings) -> Iterator[Row]:
    """What a person asks of a large ledger: one record, and the first lines of all."""
    rows, source = settings.scaled(10_000_000), settings.folder / "commands.duckdb"
    bare("make_duckdb", source, rows)
    project = str(
        make_project(settings.folder / "commands", duckdb_file(source), http("http://127.0.0.1:9", 100))
    )
    timed(BACKHAUL, "baseline", "customers", "--project", project, "--quiet")
    first_lines = f"{BACKHAUL} records customers --json --project {project} | head -n 10"
    asked = {
        "`why SYNC KEY`": (BACKHAUL, "why", "customers", str(rows // 2), "--project", project),
        "`records SYNC --json \\| head`": ("sh", "-c", first_lines),
    }
    for name, command in asked.items():
        seconds, peak = middle([timed(*command) for _ in range(settings.repeat)])
        yield Row(
            f"{name} of {rows:,} records", f"{seconds:.2f} s", "1.00 s", f"{seconds:.2f}", peak, seconds < 1
        )


def budget(settings: Settings) -> Iterator[Row]:
    """Two processes with one credential, on an embedded state and on PostgreSQL: how much of the rate they use together, and
    whether a window was ever exceeded at the sink."""
    count, per, batch, windows = 100, 2.0, 10, 5
    rows, source = count * batch * (windows + 1) // 2, settings.folder / "budget.duckdb"
    bare("make_duckdb", source, rows)
    with postgres(settings.folder / "budget-server") as dsn:
        for name, state in (("a folder", str(settings.folder / "budget-state")), ("PostgreSQL", dsn)):
            with sink() as target:
                api = {**http(target.url, batch), "rate_limits": [f"{count}/{per:g}s"]}
                made = [
                    make_project(
                        settings.folder / f"budget-{name.split()[-1]}-{who}", duckdb_file(source), api, state, f"s{who}"
                    )
                    for who in range(2)
                ]  # fmt: skip
                run_together(made)
                times = target.times()
            full = (len(times) - 1) // count
            used = full * per / (times[full * count] - times[0])
            worst = min(after - before for before, after in zip(times, times[count:], strict=False))
            yield Row(f"two processes at {count} requests in {per:g} s, state in {name}", f"{used:.1%} of the rate",
                      f"95%, no window exceeded (closest: {worst:.3f} s)", f"{used:.2f}", 0, used >= 0.95 and worst >= per)  # fmt: skip


def _beside(what: str, rows: int, ours: list[Took], rival: list[Took], name: str) -> Row:
    seconds, peak = middle(ours)
    rate, other = rows / seconds, rows / middle(rival)[0]
    return Row(
        what,
        f"{rate:,.0f} rows/s",
        f"70% of {other:,.0f} rows/s ({name})",
        f"{rate / other:.2f}",
        peak,
        rate >= 0.7 * other,
    )


def memory(settings: Settings) -> Iterator[Row]:
    """Peak memory at growing sizes; the bound is `memory_limit`, left at its default."""
    for rows in (settings.scaled(1_000_000), settings.scaled(5_000_000), settings.scaled(20_000_000)):
        source = settings.folder / f"memory-{rows}.duckdb"
        bare("make_duckdb", source, rows)
        with sink() as target:
            project = make_project(
                settings.folder / f"memory-{rows}", duckdb_file(source), http(target.url, 1_000)
            )
            took, _ = run_sync(project)
            yield _bounded(f"memory: first sync of {rows:,} rows", took)
            took, _ = run_sync(project)
            yield _bounded(f"memory: {rows:,} rows, nothing changed", took)
        forget(project)
        source.unlink()


def _bounded(what: str, took: Took) -> Row:
    return Row(what, f"{took.peak >> 20:,} MiB in {took.seconds:.1f} s", "1,024 MiB (`memory_limit`)", f"{took.peak / GIB:.2f}", took.peak,
               took.peak < GIB)  # fmt: skip


CASES: dict[str, Callable[[Settings], Iterator[Row]]] = {
    "help": show_help, "warm": warm, "first": first, "journal": journal, "into-postgres": into_postgres, "from-postgres": from_postgres, "memory": memory, "rival": rival,
    "budget": budget, "commands": commands,
}  # fmt: skip
