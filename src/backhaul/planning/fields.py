"""Every mapped field against the destination's own metadata, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from backhaul.errors import Problem
from backhaul.mapping.mapping import nearest
from backhaul.types import Mode, ObjectSchema


def check_fields(sync: Any, schema: ObjectSchema) -> Sequence[Problem]:
    """Fields that do not exist or cannot be written, identifiers that are not unique, required fields left out."""
    return [
        *_unknown(sync, schema),
        *_markup(sync, schema),
        *_identifiers(sync, schema),
        *_required(sync, schema),
    ]


def _markup(sync: Any, schema: ObjectSchema) -> Iterator[Problem]:
    for name, mapped in sync.fields.items():
        field = schema.fields.get(name)
        if mapped.markup and not (field and field.escapes):
            yield sync.problem(
                f"fields.{name}", f"{name} has no markup at {sync.destination}", "leave out `markup`"
            )


def _unknown(sync: Any, schema: ObjectSchema) -> Iterator[Problem]:
    for path, name in [
        *(("identify", name) for name in sync.identify),
        *(("fields", name) for name in sync.fields),
    ]:
        field = schema.fields.get(name)
        if field is None and not schema.open:
            yield sync.problem(
                f"{path}.{name}",
                f"{schema.name} has no field {name} at {sync.destination}",
                nearest(name, schema.fields),
            )
        elif field is not None and not field.writable and path == "fields":
            yield sync.problem(
                f"{path}.{name}", f"{name} is read-only at {sync.destination}", "leave it out of fields"
            )


def _identifiers(sync: Any, schema: ObjectSchema) -> Iterator[Problem]:
    if schema.keys is not None:
        if frozenset(sync.identify) not in schema.keys:
            names = ", ".join(sync.identify)
            known = "; ".join(sorted(", ".join(sorted(key)) for key in schema.keys)[:8]) or "there is none"
            message = f"{schema.name} has no unique index on exactly ({names}): a key could mean many rows"
            hint = f"add a unique constraint, or identify records by one that exists: {known}"
            yield sync.problem("identify", message, hint)
        return
    if len(sync.identify) != 1 or sync.mode is Mode.INSERT:
        return
    (name,) = sync.identify
    field = schema.fields.get(name)
    if field is not None and not field.unique and any(other.unique for other in schema.fields.values()):
        unique = ", ".join(sorted(other.name for other in schema.fields.values() if other.unique)[:8])
        yield sync.problem(f"identify.{name}", f"{name} is not unique at {sync.destination}, so it cannot identify a record",
                           f"unique fields: {unique}")  # fmt: skip


def _required(sync: Any, schema: ObjectSchema) -> Iterator[Problem]:
    if sync.mode is Mode.UPDATE:
        return
    for field in schema.fields.values():
        if (
            field.required
            and field.writable
            and field.name not in sync.fields
            and field.name not in sync.identify
        ):
            yield sync.problem(
                "fields",
                f"{schema.name} requires {field.name}, which is not mapped",
                f"add {field.name}: … under fields",
            )
