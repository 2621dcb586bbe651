"""A process of its own that works with a state: `python writer.py ADDRESS what`; every line it prints is durable."""

from __future__ import annotations

import asyncio
import sys
import time

from backhaul.state.journal import BatchOutcome, Journal
from backhaul.state.letters import DeadLetter
from backhaul.state.opening import open_state


async def deliver(journal: Journal, lane: int) -> None:
    """Batches of ten rows, for ever; says each intent and each outcome once it is written."""
    for number in range(1_000_000):
        low = (number * 4 + lane) * 10
        await journal.intend(low, low + 10, "upsert", f"key-{low}", "{}")
        print("intent", low, flush=True)  # noqa: T201
        letter = DeadLetter(str(low), "upsert", "bad", "no", 1, "{}", "1")
        await journal.settle(BatchOutcome(low, low + 10, rejected=[low]), [letter])
        print("outcome", low, flush=True)  # noqa: T201


async def journal(address: str) -> None:
    async with Journal(open_state(address), "s", "p1") as opened:
        await asyncio.gather(*(deliver(opened, lane) for lane in range(4)))


async def refused(address: str, rows: int) -> None:
    """One batch of a thousand rows, of which the first so many are refused."""
    dead = [DeadLetter(f"{row}", "upsert", "bad", "no", 1, "{}", "1") for row in range(rows)]
    async with Journal(open_state(address), "s", "p1") as journal:
        await journal.intend(0, 1000, "upsert", "k", "{}")
        await journal.settle(BatchOutcome(0, 1000, rejected=list(range(rows))), dead)


def main(address: str, what: str) -> None:
    if what == "journal":
        asyncio.run(journal(address))
    elif what.startswith("refused:"):
        asyncio.run(refused(address, int(what.removeprefix("refused:"))))
    elif what == "open":
        open_state(address).close()
        print("opened", flush=True)  # noqa: T201
    else:
        with open_state(address).lease("s"):
            print("leased", flush=True)  # noqa: T201
            time.sleep(3600)


main(sys.argv[1], sys.argv[2])
