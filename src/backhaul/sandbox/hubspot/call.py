"""One request at an endpoint of the simulated account, once it is let in and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from backhaul.sandbox.hubspot.answers import Refusal
from backhaul.sandbox.hubspot.property import invalid
from backhaul.sandbox.hubspot.store import ObjectType, Record

if TYPE_CHECKING:
    from backhaul.sandbox.hubspot.api import HubSpotSandbox


@dataclass(frozen=True, slots=True)
class Call:
    """`dated` is a call of a dated version such as 2026-09, and not of v3."""

    account: HubSpotSandbox
    request: web.Request
    kind: ObjectType
    body: Mapping[str, Any]
    dated: bool

    @property
    def id_property(self) -> str | None:
        """The property of a single record's `?idProperty=`. Raises: Refusal."""
        name = self.request.query.get("idProperty")
        if name is not None and name not in {item.name for item in self.kind.identifying()}:
            raise Refusal("VALIDATION_ERROR", f"{name} is not a unique property of {self.kind.type_id}")
        return name

    def record(self) -> Record | None:
        """The single record that the path names."""
        return self.kind.find(self.id_property, self.request.match_info["id"])

    def texts(self, properties: Any) -> dict[str, str]:
        """Properties of a write as strings; what the account drops is gone.

        Raises:
            Refusal: a property does not exist or cannot be written, or a value is null, a list or an object.
        """
        if not isinstance(properties, Mapping):
            raise Refusal(
                "VALIDATION_ERROR", "Invalid input JSON on line 1, column 1: properties is not an object"
            )
        return {name: self._text(name, value) for name, value in properties.items() if self._writable(name)}

    def _writable(self, name: str) -> bool:
        known = self.kind.properties.get(name)
        if known is not None and not known.read_only and not known.calculated:
            return True
        if self.account.unknown_properties == "drop":
            return False
        if known is None:
            raise invalid(name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
        raise invalid(name, "READ_ONLY_VALUE", f'"{name}" is a read only property; its value cannot be set.')

    def _text(self, name: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, bool | int | float):
            return str(value).lower() if isinstance(value, bool) else str(value)
        raise invalid(
            name,
            "INVALID_TYPE",
            f"Cannot deserialize value of type string: {orjson.dumps(value).decode()[:80]}",
        )

    def shown(self, record: Record, asked: Any, id_property: str | None = None) -> dict[str, str | None]:
        """A record's properties as a read gives them: those asked for by name, and a few always."""
        every = record.values()
        names = [*(asked or self.kind.shown), "createdate", "hs_object_id", self.kind.modified]
        names += [id_property] if id_property else []
        return {name: every.get(name) or None for name in names if name in self.kind.properties}

    def written(self, record: Record, properties: Mapping[str, str]) -> dict[str, str | None]:
        """A record's properties as the answer to a write gives them: a cleared one is an empty string."""
        every = record.values()
        names = [*properties, "createdate", "hs_object_id", self.kind.modified]
        names += [item.name for item in self.kind.identifying() if every.get(item.name)]
        return {name: every[name] for name in names if name in every}
