"""`python -m benchmarks.unjournaled run …`: the command line with a journal that writes nothing while batches are sent.

For measuring what the journal costs, and nothing else: intents are dropped, outcomes are kept in memory and stored at the
end, so that all the rest of the run is the same. A run that dies this way has forgotten everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from backhaul.cli import main
from backhaul.state.journal import Journal, Statement, Told
from backhaul.workspace import Workspace


class Unjournaled(Journal):
    """Takes what it is told at once; stores the outcomes when the last batch is done."""

    async def __aenter__(self) -> Self:
        self._kept: dict[str, list[Sequence[Any]]] = {}
        return self

    def store(self, statements: Sequence[Statement], told: Told) -> None:
        for name, values in statements:
            if name not in ("intend", "end_intent"):
                self._kept.setdefault(name, []).append(values)
        told(None)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._store_all)

    def _store_all(self) -> None:
        writer = self.state.writer()
        writer.write(self._kept)
        writer.close()


def run() -> None:
    Workspace.journal = lambda self, sync, plan: Unjournaled(self.state, sync, plan)  # type: ignore[method-assign]
    main()


if __name__ == "__main__":
    run()
