"""One run a sync over all hosts: an item with a fence that grows with every owner, and a beat that its owner changes.

No host's clock is compared with another's. An owner sends only within one lease length, by its own monotonic clock, of
having asked for its last beat; so whoever has watched the same beat for that length and the timeout of a request knows that
nothing is on its way any more, and takes the sync. The server's time only spares the watching where the beat is young.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator

from backhaul.errors import RunError, StateError
from backhaul.state.dynamo.failures import Refuted
from backhaul.state.dynamo.table import Item, Table, Write, change, check, only_if, put
from backhaul.state.process import is_gone, owner, this_process
from backhaul.state.renewal import RenewedLease

_OURS = "#fence = :fence AND attribute_exists(#owner)"
_ROUGH = 1.0
"""Seconds by which the server's time may be wrong."""


class DynamoLease(RenewedLease):
    """A lease on one sync; `fence_check` goes with every transaction that stores something of its run."""

    store = "DynamoDB"

    def __init__(
        self, table: Table, sync: str, fence: int, length: float, since: float, name: str = ""
    ) -> None:
        self._table = table
        self.fence_check = _if_ours(check(f"lease/{sync}", "lease"), fence)
        super().__init__(sync, fence, length, since, name)

    def _move_on(self) -> bool:
        try:
            self._table.do(_if_ours(change(f"lease/{self.sync}", "lease", _beat(self._table)), self.fence))
        except Refuted:
            return False
        return True

    def _let_go(self) -> None:
        """The table is the state's."""


def _if_ours(write: Write, fence: int) -> Write:
    return only_if(write, _OURS, ("fence", "owner"), {"fence": fence})


def _beat(table: Table) -> dict[str, object]:
    return {"beat": secrets.token_hex(8), "beaten": table.clock.now()}


@contextlib.contextmanager
def hold(table: Table, sync: str, length: float, timeout: float, name: str) -> Iterator[DynamoLease]:
    """Holds the sync for this process. `timeout`: the longest that one of its requests may take, in seconds.

    Raises:
        RunError: another process is running it.
    """
    found = table.get(f"lease/{sync}", "lease")
    if found and found["owner"] and not is_gone(found["process"]):
        if _is_young(table, found):
            raise _taken(table, found, name)
        _watch(table, found, sync, name)
    fence = found["fence"] + 1 if found else 1
    values = {
        "owner": owner(),
        "process": this_process(),
        "fence": fence,
        "seconds": length,
        "timeout": timeout,
    }
    since, beat = time.monotonic(), _beat(table)
    try:
        table.do(_unless_moved(put(f"lease/{sync}", "lease", {**values, **beat}, new=True), found))
    except Refuted:
        now = table.get(f"lease/{sync}", "lease")
        if now is None or now["beat"] != beat["beat"]:  # else ours was stored, and its answer lost
            raise _taken(table, now, name) from None
    lease = DynamoLease(table, sync, fence, length, since, name)
    try:
        yield lease
    finally:
        lease.end()
        with contextlib.suppress(StateError):
            table.do(_if_ours(change(f"lease/{sync}", "lease", {"owner": None, "process": None}), fence))


def _unless_moved(write: Write, found: Item | None) -> Write:
    if found is None:
        return write
    seen = {"was": found["fence"], "seen": found["beat"]}
    return only_if(write, "#fence = :was AND #beat = :seen", ("fence", "beat"), seen)


def holder(table: Table, sync: str) -> Item | None:
    """Who seems to run a sync."""
    found = table.get(f"lease/{sync}", "lease")
    alive = found and found["owner"] and not is_gone(found["process"]) and _is_young(table, found)
    return found if alive else None


def _age(table: Table, found: Item) -> float:
    return table.clock.now() - float(found["beaten"])


def _is_young(table: Table, found: Item) -> bool:
    # a beat of the future was not set by this clock, and binds nobody
    return bool(-_ROUGH <= _age(table, found) < found["seconds"] + found["timeout"])


def _watch(table: Table, found: Item, sync: str, name: str) -> None:
    """Waits until the lease has not been moved on for its length and the timeout of a request.

    Raises:
        RunError: it has been.
    """
    until = time.monotonic() + found["seconds"] + found["timeout"]
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, max(found["seconds"] / 6, 0.05)))
        now = table.get(f"lease/{sync}", "lease")
        if now is None or (now["fence"], now["beat"]) != (found["fence"], found["beat"]):
            raise _taken(table, now, name)


def _taken(table: Table, found: Item | None, name: str) -> RunError:
    who = found["owner"] if found and found["owner"] else "another worker"
    left = found["seconds"] + found["timeout"] - _age(table, found) if found and found["owner"] else 0.0
    free = f"; if it has died, the sync is free in {left:.0f} s" if left >= 1 else ""
    return RunError(
        f"{name} is being run by {who}", hint=f"wait for it, or look with `backhaul status`{free}"
    )
