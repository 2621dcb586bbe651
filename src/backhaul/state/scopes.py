"""Which ledger a sync works on: that of one object at one account, whatever the sync is called today.

A sync has an id of its own, so that a rename changes one row. The account is what the destination states of itself
(`Destination.account`); where it states nothing it is the address, and a change of that needs a person's word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from backhaul.errors import UsageError
from backhaul.state.protocol import Row, State
from backhaul.types import Account


@dataclass(frozen=True, slots=True)
class Scope:
    """What one ledger belongs to. `id` is opaque and safe as the name of a file; `sync` is the sync's own id, `name` what it is
    called now. Without an `account` nothing was recorded yet: the sync never ran here."""

    id: str
    sync: str
    name: str
    object: str
    account: str = ""
    label: str = ""
    """The account, for people."""
    place: str = ""
    """The object at the account, whichever sync writes to it."""

    @property
    def is_recorded(self) -> bool:
        return bool(self.account)

    @property
    def where(self) -> str:
        """The object and the account, for people."""
        return f"{self.object} at {self.label}" if self.label else self.object


class Scopes:
    """The scopes of one project in its state."""

    def __init__(self, state: State, project: str) -> None:
        self.state, self.project = state, project

    def sync_id(self, name: str) -> str:
        """The id of a sync, which it keeps from now on."""
        rows = self._sync(name)
        if not rows:
            made = f"{name}-{_digest(self.project, name, self.state.now(), size=3)}"
            self.state.do("keep_sync", {"id": made, "project": self.project, "name": name})
            rows = self._sync(name)
        return str(rows[0]["id"])

    def known_id(self, name: str) -> str | None:
        """The id of a sync; None where it never ran."""
        rows = self._sync(name)
        return str(rows[0]["id"]) if rows else None

    def _sync(self, name: str) -> Sequence[Row]:
        return self.state.do("sync", {"project": self.project, "name": name})

    def names(self) -> dict[str, str]:
        """What each sync that the state knows is called, by its id."""
        return {row["id"]: row["name"] for row in self.state.do("syncs", {"project": self.project})}

    def all(self) -> list[Scope]:
        """Every scope of the project, the oldest first."""
        names = self.names()
        return [
            Scope(row["id"], row["sync"], names[row["sync"]], row["object"], row["account"], row["label"], row["place"])
            for row in self.state.do("scopes", {"project": self.project})
            if row["sync"] in names
        ]  # fmt: skip

    def remembered(self, sync: Any, address: str) -> Scope:
        """The scope that a sync works on, by the account that its destination's address led to last."""
        known = self.known_id(sync.name)
        accounts = {
            row["address"]: row["account"] for row in self._accounts(sync.destination)
        }  # the last counts
        for scope in self.all() if known and address in accounts else ():
            if (scope.sync, scope.account, scope.object) == (known, accounts[address], sync.object):
                return scope
        return Scope(known or sync.name, known or "", sync.name, sync.object)

    def _accounts(self, destination: str) -> Sequence[Row]:
        return self.state.do("accounts", {"project": self.project, "destination": destination})

    def settle(self, sync: Any, kind: str, address: str, stated: Account | None) -> Scope:
        """The scope of a run, by what the destination states now; recorded, and made where there is none.

        Raises:
            UsageError: a person has to say whether this is the account that was delivered to before.
        """
        account, label = self._account(sync, kind, address, stated)
        return self._record(sync, address, stated.id if stated else "", account, label)

    def _account(self, sync: Any, kind: str, address: str, stated: Account | None) -> tuple[str, str]:
        said = stated.id if stated else ""
        label = stated.label if stated else address or sync.destination
        known = self._accounts(sync.destination)
        for row in known:
            if (row["address"], row["stated"]) == (address, said):
                return row["account"], label
        others = [row for row in known if not said or row["stated"] == said]
        if others and not (stated and not stated.copies):
            raise _other_account(sync, label, others[-1]["label"], address)
        return f"{kind}:{said or address or sync.destination}", label

    def bind(self, sync: Any, kind: str, address: str, stated: Account | None, *, same: bool) -> Scope:
        """Takes a person's word for whose account the destination leads to: the one of before, or another.

        Raises:
            UsageError: nothing was delivered before.
        """
        said = stated.id if stated else ""
        label = stated.label if stated else address or sync.destination
        own = (address, said)
        known = [row for row in self._accounts(sync.destination) if (row["address"], row["stated"]) != own]
        if not known:
            raise UsageError(f"nothing was delivered to {sync.destination} yet, so there is nothing to choose",
                             hint=f"`backhaul plan {sync.name}`")  # fmt: skip
        account = known[-1]["account"] if same else f"{kind}:{said}@{address}"
        return self._record(sync, address, said, account, label)

    def _record(self, sync: Any, address: str, stated: str, account: str, label: str) -> Scope:
        row = {"address": address, "stated": stated, "account": account, "label": label}
        known = self._accounts(sync.destination)
        if not known or row != {name: known[-1][name] for name in row}:
            who = {"project": self.project, "destination": sync.destination, "at": self.state.now()}
            self.state.do("keep_account", row | who)
        sync_id = self.sync_id(sync.name)
        place = _digest(self.project, account, sync.object, size=8)
        scope = Scope(
            f"{sync_id}-{_digest(place, size=4)}", sync_id, sync.name, sync.object, account, label, place
        )
        if scope not in self.all():
            self.state.do("keep_scope", {
                "id": scope.id, "project": self.project, "sync": sync_id, "account": account, "label": label,
                "object": sync.object, "place": place, "made_at": self.state.now(),
            })  # fmt: skip
        return scope


def sync_of(scope: str) -> str:
    """The id of the sync that a scope's id is of."""
    return scope.rpartition("-")[0]


def _digest(*parts: str, size: int) -> str:
    return blake2b(orjson.dumps(parts), digest_size=size).hexdigest()


def _other_account(sync: Any, now: str, before: str, address: str) -> UsageError:
    at = "" if now == address else f" at {address}"
    return UsageError(
        f"{sync.destination} led to {before} and now leads to {now}{at}; whether that is the same account, it does not state",
        hint=f"`backhaul bind {sync.name} --same-account` if it is, `--new-ledger` if it is another one; nothing was sent",
    )
