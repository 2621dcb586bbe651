"""Whose a job's results are. They hold Zendesk's ids, failed ones a place in the request at most, and no keys: `held`, what
the account has under the batch's keys when the job is over, says whose an id is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backhaul.destinations.kit import Batch
from backhaul.destinations.zendesk.answers import of_row
from backhaul.types import Delivered, Gone, Op, Outcome, Rejected

Status = Mapping[str, Any]
Held = Mapping[str, Mapping[str, Any]]


def _rows(listed: Sequence[Status]) -> list[Status]:
    return [row for status in listed for row in status.get("results") or () if isinstance(row, Mapping)]


def attributed(batch: Batch, listed: Sequence[Status], held: Held) -> list[Outcome]:
    """One outcome for each record that the results name; a record that nobody names is left open."""
    keys = {known: key for key, known in zip(batch.keys, batch.remote_ids, strict=True) if known is not None}
    keys |= {str(record["id"]): key for key, record in held.items()}
    outcomes: dict[str, Outcome] = {}
    nameless: list[Status] = []
    for row in _rows(listed):
        key = _named(batch, listed, row, keys)
        outcome = of_row(key, row) if key is not None else None
        if key is not None and outcome is not None:
            outcomes[key] = outcome
        elif key is None:
            nameless.append(row)
    silent = [key for key in batch.keys if key not in outcomes]
    placed = _placed(batch, nameless)
    if len(silent) == len(nameless) == 1:
        placed = {silent[0]: nameless[0]}
    if set(placed) == set(silent):
        found = {key: of_row(key, row) for key, row in placed.items()}
        outcomes |= {key: outcome for key, outcome in found.items() if isinstance(outcome, Rejected)}
    if (
        batch.op is Op.UPDATE
    ):  # whose id is known was not asked for: not to be under a new key yet says nothing
        sought = zip(batch.keys, batch.remote_ids, strict=True)
        missing = (key for key, known in sought if known is None and key not in held and key not in outcomes)
        outcomes |= {key: Gone(key, "RecordNotFound", "not in Zendesk") for key in missing}
    return list(outcomes.values())


def _placed(batch: Batch, nameless: Sequence[Status]) -> dict[str, Status]:
    """Failed rows by the place that some have as their `id` (support.zendesk.com, create_or_update_many: results): to be believed
    only where they are about the very records that no other row names."""
    places = {row.get("id"): row for row in nameless if row.get("error")}
    return {key: places[place] for place, key in enumerate(batch.keys) if place in places}


def _named(batch: Batch, listed: Sequence[Status], row: Status, keys: Mapping[str, str]) -> str | None:
    """By id; else by place, where the job had all of the batch and nothing else."""
    if row.get("id") is not None and str(row["id"]) in keys:
        return keys[str(row["id"])]
    place = row.get("index")
    whole = len(listed) == 1 and listed[0].get("total") == len(batch)
    if whole and isinstance(place, int) and 0 <= place < len(batch) and row.get("error"):
        return batch.keys[place]
    return None


def deleted(batch: Batch, listed: Sequence[Status], held: Held) -> Iterator[Outcome]:
    """What is not there any more is deleted, whoever did it; what is still there was refused, if the job says so
    of as many."""
    errors = [row for row in _rows(listed) if row.get("error") and row["error"] != "RecordNotFound"]
    nameless = errors if len(errors) >= len(held) else []
    for key, known in zip(batch.keys, batch.remote_ids, strict=True):
        if key not in held:
            yield Delivered(key, known)
            continue
        own = [row for row in errors if str(row.get("id")) == str(held[key]["id"])] or nameless
        outcome = of_row(key, own[0]) if own else None
        if outcome is not None:
            yield outcome
