"""A process of its own that works with a state folder: `python writer.py FOLDER what`; every line it prints is durable."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from backhaul.state.journal import BatchOutcome, DeadLetter, Journal
from backhaul.state.lease import lease
from backhaul.state.store import State


async def deliver(journal: Journal, lane: int) -> None:
    """Batches of ten rows, for ever; says each intent and each outcome once it is written."""
    for number in range(1_000_000):
        low = (number * 4 + lane) * 10
        await journal.intend(low, low + 10, "upsert", f"key-{low}")
        print("intent", low, flush=True)  # noqa: T201
        letter = DeadLetter(str(low), "upsert", "bad", "no", 1, "{}", "1")
        await journal.settle(BatchOutcome(low, low + 10, rejected=[low]), [letter])
        print("outcome", low, flush=True)  # noqa: T201


async def journal(folder: Path) -> None:
    async with Journal(State(folder), "s", "p1") as opened:
        await asyncio.gather(*(deliver(opened, lane) for lane in range(4)))


def main(folder: Path, what: str) -> None:
    if what == "journal":
        asyncio.run(journal(folder))
    elif what == "open":
        State(folder).close()
        print("opened", flush=True)  # noqa: T201
    else:
        with lease(folder / "locks", "s"):
            print("leased", flush=True)  # noqa: T201
            time.sleep(60)


main(Path(sys.argv[1]), sys.argv[2])
