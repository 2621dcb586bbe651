"""Descriptions of destination objects: remembered, so that a run without changes needs no request; fresh, before
anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

import orjson

from backhaul.delivery.connect import Connection, connected, insist
from backhaul.types import Field, FieldType, ObjectSchema
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

    async def connect(self) -> Connection:
        """Raises: Halt where the destination refuses us or does not answer."""
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
        rows = self.workspace.state.do("schema", {"sync": self.sync.name})
        body = orjson.loads(rows[0]["body"]) if rows else {}
        offline = self.workspace.destination_class(self.sync.destination).spec.describes_offline
        if offline or body.get("of") != self._of():
            return await self.fresh(), True
        fields = {name: _field(item) for name, item in body["fields"].items()}
        return ObjectSchema(body["name"], fields, body["open"]), False

    async def fresh(self) -> ObjectSchema:
        """Asks the destination, and remembers what it says."""
        connection = await self.connect()
        schema: ObjectSchema = await insist(
            lambda: connection.destination.describe(self.sync.object),
            connection.budget,
            self.workspace.surroundings,
        )
        body = {"of": self._of(), "name": schema.name, "open": schema.open,
                "fields": {name: asdict(field) for name, field in schema.fields.items()}}  # fmt: skip
        self.workspace.state.do("keep_schema", {"sync": self.sync.name, "body": orjson.dumps(body).decode()})
        return schema

    def _of(self) -> str:
        return f"{self.sync.destination}/{self.sync.object}"


def _field(item: dict[str, Any]) -> Field:
    choices = item.pop("choices")
    return Field(
        **{**item, "type": FieldType(item["type"])}, choices=None if choices is None else tuple(choices)
    )
