"""Bulk API 2.0, by its developer guide: a job takes CSV, works on it in parts of 10,000 records, and says what became of
each in three files whose rows come in no order. Complete does not mean done, nor Failed that nothing was."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backhaul.destinations.kit import Answer, Batch
from backhaul.destinations.salesforce.answers import full_id, refusal
from backhaul.destinations.salesforce.fields import SEVERAL, joined
from backhaul.errors import Refused, Unsettled
from backhaul.types import BatchLimits, Delivered, Op, Outcome, Rejected, Retry

NULL = "#N/A"
"""What clears a field in a cell; an empty one leaves it alone."""
LIMITS = BatchLimits(20_000, 30_000_000)
"""Of one job. Salesforce takes 100 MB; this is two of its parts, and a file of results stays small enough to be read whole."""
OPS = {Op.UPSERT: "upsert", Op.INSERT: "insert"}
"""What goes as a job. Updates and deletes would need the records' own ids in the file."""
EXTRA_REQUESTS = 7
"""Of a job, beside the one that makes it: the file, whether it is open, its start, one question, and three files of results."""
WORKING = ("UploadComplete", "InProgress")
RESULTS = ("successfulResults", "failedResults", "unprocessedrecords")
_CLEARING = f'"{NULL}"'.encode()
_CLEARS = re.compile(rb'(?m)(?:^|,)"#N/A"(?=,|$)')
"""A cell whose text is what clears a field; NULL is written without quotes, and quotes within a text are doubled."""
_EACH = 5000.0
"""Records that it works through in a second, at most, and so when to look again."""
_UNREADABLE = "InvalidBatch"
"""How the error of a file begins that it cannot read, such as of a column for no field (issue threads of jsforce)."""


def order(batch: Batch) -> dict[str, str]:
    """The job for a batch."""
    wanted = {"object": batch.object, "operation": OPS[batch.op], "contentType": "CSV", "lineEnding": "LF",
              "columnDelimiter": "COMMA"}  # fmt: skip
    return wanted | ({"externalIdFieldName": batch.identifiers[0]} if batch.op is Op.UPSERT else {})


def file(batch: Batch) -> bytes:
    """The batch with a line of field names before it.

    Raises:
        Refused: it holds a text that would clear a field.
    """
    text = batch.text()
    if _CLEARING in text and _CLEARS.search(text):
        raise Refused(f"a text is {NULL}, which clears the field in a bulk job", code="CLEARING_TEXT")
    several = [place for place, field in enumerate(batch.fields) if field.native_type == SEVERAL]
    head = ",".join(field.name for field in batch.fields).encode() + b"\n"
    return head + (_joined(text, several) if several else text)


def _joined(text: bytes, several: Sequence[int]) -> bytes:
    """Lines whose lists of choices are written as Salesforce wants them; an empty list clears."""
    made = io.StringIO(newline="")
    lines = csv.writer(made, lineterminator="\n")
    for row in csv.reader(io.StringIO(text.decode(), newline="")):
        for place in several:
            row[place] = joined(row[place]) or (row[place] and NULL)
        lines.writerow(row)
    return made.getvalue().encode()


def wait(batch: Batch) -> float:
    """Seconds until it is worth while to ask about a job."""
    return min(max(len(batch) / _EACH, 0.5), 10.0)


def outcomes(
    batch: Batch, job: Mapping[str, Any], succeeded: Answer, failed: Answer, unprocessed: Answer
) -> Iterator[Outcome]:
    """What became of each record, by its identifier.

    Raises:
        Unsettled: an answer is no file of results.
    """
    name, said = batch.identifiers[0], str(job.get("errorMessage") or "")
    if said.startswith(_UNREADABLE):
        yield from (Rejected(key, _UNREADABLE, said) for key in batch.keys)
        return
    for row in _rows(succeeded, name):
        yield Delivered(row[name], full_id(row["sf__Id"]), row["sf__Created"] == "true")
    for row in _rows(failed, name):
        yield _failed(row[name], row["sf__Error"])
    for row in _rows(unprocessed, name):
        yield Retry(row[name], f"the job ended as {job['state']} before this record: {said}")


def _failed(key: str, error: str) -> Outcome:
    """`CODE:message:fields --` (from memory), where the message may hold colons too."""
    code, _, rest = error.partition(":")
    said, _, names = rest.removesuffix("--").strip().rpartition(":")
    return refusal(key, code.strip() or "ERROR", said or names or error, _names(names) if said else ())


def _names(text: str) -> Sequence[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _rows(answer: Answer, name: str) -> Iterator[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(answer.body.decode(), newline=""))
    if answer.status != 200 or name not in (rows.fieldnames or [name]):
        raise Unsettled(f"HTTP {answer.status} without a file of results")
    yield from rows
