"""Reads records back as long as what differs may only be shown later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from backhaul.delivery.connect import Connection, insist
from backhaul.mapping.mapping import Mapping
from backhaul.verification.verify import Expected, Verified, compare
from backhaul.workspace import Workspace

_LONGEST_LAG = 60.0
"""Seconds for which an index is waited for."""


async def read_back(
    workspace: Workspace, connection: Connection, sync: Any, mapping: Mapping, expected: list[Expected],
    stopping: Callable[[], bool] = lambda: False, *, age: float = 0.0,
) -> Verified:  # fmt: skip
    """Compares records with what the destination shows, and again until its lag is over; `age`: seconds since it acknowledged
    the last of them.

    Raises:
        Unsupported: the destination cannot be read.
        RunError: it could not be read now.
    """
    around, destination = workspace.surroundings, connection.destination
    index_lag = destination.index_lag(sync.object) or 0.0
    lag = max(destination.read_lag_of(sync.object, tuple(sync.identify)), min(index_lag, _LONGEST_LAG))
    until, pause = around.clock() + lag - age, 1.0
    while True:
        # what was asked before the lag was over is no evidence, however late the answer comes
        left = until - around.clock()
        verified = await insist(
            lambda: compare(destination, sync.object, mapping, expected),
            connection.budget,
            around,
        )
        if not verified.mismatches or left <= 0 or stopping():
            return _evident(verified, index_lag - age)
        said = f"{len(verified.mismatches)} records are not shown as they were sent"
        connection.budget.told(f"{said}; they may be for {lag:g} seconds")
        with suppress(TimeoutError):
            await asyncio.wait_for(
                connection.budget.stop.wait(), min(pause, max(until - around.clock(), 0.0))
            )
        connection.budget.told("")
        pause *= 2


def _evident(verified: Verified, index_lag: float) -> Verified:
    """Without records that may only not be found yet, because the index takes longer than a run waits."""
    if index_lag <= _LONGEST_LAG:
        return verified
    return replace(verified, mismatches=tuple(one for one in verified.mismatches if not one.missing))
