"""Descriptions of destination objects: remembered, so that a run without changes needs no request; fresh, before
anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

import orjson

from backhaul.delivery.connect import Connection, connected, insist
from backhaul.errors import Exhausted, Halt, Unreachable
from backhaul.state.scopes import Scope
from backhaul.types import Account, ObjectSchema, field_from
from backhaul.workspace import Workspace


class Schemas:
    """The description of one sync's object. The destination is connected when first needed, until `stack` closes; `permit`
    is asked before anything leaves."""

    def __init__(
        self,
        workspace: Workspace,
        sync: Any,
        stack: AsyncExitStack,
        permit: Callable[[], None] = lambda: None,
    ) -> None:
        self.workspace, self.sync, self.stack = workspace, sync, stack
        self._permit = permit
        self._connection: Connection | None = None
        self._scope: Scope | None = None
        self._stated = False
        self.remark: str | None = None
        """What people should know of the account, where it could not be asked."""

    async def connect(self) -> Connection:
        """The destination, once it has stated whose account it is: nothing is sent to another one.

        Raises:
            Halt: the destination refuses us, does not answer, or is another account than this run began with.
            UsageError: a person has to say whose account it is.
        """
        connection = await self._connected()
        if not self._stated:
            await self._ask(connection)
        return connection

    async def scope(self) -> Scope:
        """Whose ledger this run works on: as the destination states it; where it does not answer, as it did last, so that a run
        without changes does not need it.

        Raises:
            Halt, UsageError: as `connect`.
        """
        if self._scope is None and not self._asks:
            self._settle(await self.stated())
        if self._scope is None:
            known = self.workspace.scope(self.sync)
            try:
                await self.connect()
            except (Unreachable, Exhausted) as error:
                if not known.is_recorded:
                    raise
                self._scope = known
                self.workspace.settle_scope(self.sync, known)
                self.remark = f"{self.sync.destination} could not be asked for its account ({error}); it was {known.label} last"
        return self.workspace.scope(self.sync)

    @property
    def _asks(self) -> bool:
        return self.workspace.destination_class(self.sync.destination).spec.states_account

    async def _ask(self, connection: Connection) -> None:
        self._settle(await self._statement(connection))

    async def _statement(self, connection: Connection) -> Account | None:
        destination, around = connection.destination, self.workspace.surroundings
        free = not (self._asks and destination.base_url)
        return await insist(destination.account, connection.budget, around, free=free)

    async def stated(self) -> Account | None:
        """The account as the destination states it now, whatever it was taken for."""
        if not self._asks:
            return await self.workspace.undelivering(self.sync.destination).account()
        return await self._statement(await self._connected())

    def _settle(self, stated: Account | None) -> None:
        name = self.sync.destination
        kind = self.workspace.destination_class(name).spec.name
        scope = self.workspace.scopes.settle(self.sync, kind, self.workspace.address(name), stated)
        if self._scope is not None and scope.id != self._scope.id:
            raise Halt(
                f"{self.sync.destination} is {scope.label} now, and this run began with {self._scope.label}",
                hint=f"nothing was sent; `backhaul plan {self.sync.name}` shows what {scope.label} would get",
            )
        self._scope, self._stated = scope, True
        self.workspace.settle_scope(self.sync, scope)

    async def _connected(self) -> Connection:
        if self._connection is None:
            name = self.sync.destination
            kind = self.workspace.destination_class(name)
            opening = connected(
                name,
                kind,
                self.workspace.destination_config(name),
                self.workspace.buckets(),
                priority=self.sync.priority,
                permit=self._permit,
                surroundings=self.workspace.surroundings,
                transport=self.workspace.transport,
                mask=self.workspace.mask,
            )
            self._connection = await self.stack.enter_async_context(opening)
        return self._connection

    async def remembered(self) -> tuple[ObjectSchema, bool]:
        """The description, and whether it is fresh: where none is remembered, or asking costs nothing."""
        rows = self.workspace.state.do("schema", {"scope": self.workspace.scope(self.sync).id})
        body = orjson.loads(rows[0]["body"]) if rows else {}
        offline = self.workspace.destination_class(self.sync.destination).spec.describes_offline
        if offline or body.get("of") != self._of() or "keys" not in body:
            return await self.fresh(), True
        fields = {name: field_from(item) for name, item in body["fields"].items()}
        keys = body["keys"]
        known = None if keys is None else frozenset(map(frozenset, keys))
        return ObjectSchema(body["name"], fields, body["open"], known), False

    async def fresh(self) -> ObjectSchema:
        """Asks the destination, and remembers what it says."""
        connection = await self.connect()
        schema: ObjectSchema = await insist(
            lambda: connection.destination.describe(self.sync.object),
            connection.budget,
            self.workspace.surroundings,
        )
        keys = None if schema.keys is None else [sorted(names) for names in schema.keys]
        body = {"of": self._of(), "name": schema.name, "open": schema.open, "keys": keys,
                "fields": {name: asdict(field) for name, field in schema.fields.items()}}  # fmt: skip
        scope = (await self.scope()).id
        self.workspace.state.do("keep_schema", {"scope": scope, "body": orjson.dumps(body).decode()})
        return schema

    def _of(self) -> str:
        return f"{self.sync.destination}/{self.sync.object}"
