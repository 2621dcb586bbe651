"""Bulk lead import, by Adobe's REST guide: a file of up to 10 MB is taken in and worked on; another file says which rows failed.

The guide does not say what an empty cell does to a field, nor how many of the leads are new; so nobody's file is sent unless the
destination's `bulk_above` says so.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from backhaul.destinations.kit import Answer, Batch
from backhaul.errors import Halt, Unsettled
from backhaul.types import BatchLimits, Delivered, FieldType, Outcome, Rejected

LIMITS = BatchLimits(50_000, 9_500_000)
"""Of one file: 10 MB, less what is put around it."""
REFUSED = "import"
"""The code of a row that failed: its file has words alone."""
_REASON = "Import Failure Reason"
_WORKING = ("Queued", "Importing")
_FIRST, _AGAIN, _LONGEST = 0.5, 5.0, 30.0
"""Seconds until the first question, at least, and from one to the next (guide: 5 to 30)."""
_EACH = 3000.0
"""Leads that it works through in a second, about, and so when to ask again."""


def form(batch: Batch) -> tuple[bytes, str]:
    """The batch as a form with one file, and the form's type.

    Raises:
        Halt: NULLs of the batch are to leave fields alone, which a file cannot say.
    """
    skipped = next((field.name for field in batch.fields if field.skip_null), None)
    if skipped is not None:
        raise Halt(
            f"Marketo's bulk import cannot leave {skipped!r} alone where it is NULL",
            hint="use `nulls: clear` or a default for it, or take bulk_above off the destination",
        )
    boundary = batch.idempotency_key
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="leads.csv"\r\nContent-Type: text/csv\r\n\r\n'
    return head.encode() + _file(
        batch
    ) + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def _file(batch: Batch) -> bytes:
    """A line of field names, and the records; moments to the second, as in Marketo's other requests."""
    names = ",".join(field.name for field in batch.fields).encode()
    moments = [place for place, field in enumerate(batch.fields) if field.type is FieldType.DATETIME]
    if not moments:
        return names + b"\n" + batch.text()
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    for row in csv.reader(io.StringIO(batch.text().decode(), newline="")):
        for place in moments:
            whole, point, _ = row[place].partition(".")
            row[place] = f"{whole}Z" if point else whole
        writer.writerow(row)
    return names + b"\n" + lines.getvalue().encode()


def goes_on(state: Mapping[str, Any]) -> bool:
    """Whether an import is not over.

    Raises:
        Unsettled: it says nothing of itself that is known.
    """
    status = state.get("status")
    if status not in (*_WORKING, "Complete", "Failed"):
        raise Unsettled(f"Marketo says that an import is {status!r}")
    return status in _WORKING


def wait(batch: Batch, *, again: bool = False) -> float:
    """Seconds until it is worth while to ask about an import."""
    return min(max(len(batch) / _EACH, _AGAIN if again else _FIRST), _LONGEST)


def outcomes(
    batch: Batch, state: Mapping[str, Any], failures: Answer | None, warnings: Answer | None = None
) -> Iterator[Outcome]:
    """What became of each record. Those that failed are named, and those of which something was left out; the others are
    delivered where the numbers say so."""
    failed = dict(_failed(batch, failures, _REASON)) if failures is not None else {}
    warned = dict(_failed(batch, warnings)) if warnings is not None else {}
    bad = warned | failed
    yield from (Rejected(key, REFUSED, bad[key]) for key in batch.keys if key in bad)
    if len(warned) != (state.get("numOfRowsWithWarning") or 0):
        return
    done, wrong = state.get("numOfLeadsProcessed"), state.get("numOfRowsFailed")
    whole = state.get("status") == "Complete" and isinstance(done, int) and isinstance(wrong, int)
    if whole and wrong == len(failed) and done + wrong >= len(batch):
        yield from (Delivered(key) for key in batch.keys if key not in bad)


def _failed(batch: Batch, answer: Answer, reason: str = "") -> Iterator[tuple[str, str]]:
    """The keys of a file's rows, and why they are in it: a field that is appended to each, of this name where one is known.

    Raises:
        Unsettled: the answer is no file of failures.
    """
    by = batch.identifiers[0]
    rows = csv.DictReader(io.StringIO(answer.body.decode(), newline=""))
    names = list(rows.fieldnames or ())
    why = reason or (names[-1] if names else "")
    if by == why or not {by, why} <= set(names):
        raise Unsettled("Marketo's file of failed rows does not name them")
    for row in rows:
        yield row[by], row[why] or "failed without a reason"
