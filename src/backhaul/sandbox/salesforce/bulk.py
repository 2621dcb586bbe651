"""The simulated org's Bulk API 2.0: jobs that take one CSV file, and three files of results in no order."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from backhaul.sandbox.kit import RECORDS
from backhaul.sandbox.salesforce.answers import Refusal, Whole, answer, not_found, stamp
from backhaul.sandbox.salesforce.rest import external, insert, resolved, upsert
from backhaul.sandbox.salesforce.store import SObject, new_id

if TYPE_CHECKING:
    from backhaul.sandbox.salesforce.api import SalesforceSandbox

Body = Mapping[str, Any]
LARGEST = 100 << 20
"""Bytes of a file."""
OPERATIONS = ("insert", "update", "upsert", "delete")
FILES = {"successfulResults": "done", "failedResults": "failed", "unprocessedrecords": "left"}
_DELIMITERS = {"COMMA": ",", "SEMICOLON": ";", "TAB": "\t", "PIPE": "|", "CARET": "^", "BACKQUOTE": "`"}


@dataclass(slots=True)
class Job:
    """`done` and `failed` are rows of results, `left` those of the file that nobody looked at."""

    id: str
    object: str
    operation: str
    external_id: str | None
    delimiter: str
    line_ending: str
    state: str = "Open"
    file: str | None = None
    message: str | None = None
    started: float = 0.0
    created: str = field(default_factory=stamp)
    header: list[str] = field(default_factory=list)
    done: list[list[str]] = field(default_factory=list)
    failed: list[list[str]] = field(default_factory=list)
    left: list[list[str]] = field(default_factory=list)

    def shown(self, version: str) -> dict[str, Any]:
        said = {
            "id": self.id, "object": self.object, "operation": self.operation, "state": self.state, "contentType": "CSV",
            "createdDate": self.created, "concurrencyMode": "Parallel", "apiVersion": float(version.removeprefix("v")),
            "jobType": "V2Ingest", "lineEnding": self.line_ending, "columnDelimiter": self.delimiter,
            "contentUrl": f"services/data/{version}/jobs/ingest/{self.id}/batches",
            "numberRecordsProcessed": len(self.done) + len(self.failed), "numberRecordsFailed": len(self.failed),
        }  # fmt: skip
        said |= {"externalIdFieldName": self.external_id} if self.external_id else {}
        return said | ({"errorMessage": self.message} if self.message else {})


def create(org: SalesforceSandbox, _: web.Request, body: Body) -> web.Response:
    kind = org.kinds.get(str(body.get("object")))
    operation, name = body.get("operation"), body.get("externalIdFieldName")
    delimiter = str(body.get("columnDelimiter", "COMMA"))
    if (
        kind is None
        or operation not in OPERATIONS
        or body.get("contentType", "CSV") != "CSV"
        or delimiter not in _DELIMITERS
    ):
        raise Whole("INVALIDJOB", f"InvalidJob : no such job: {dict(body)}")
    if operation == "upsert":
        if not name:
            raise Whole("INVALIDJOB", "InvalidJob : Must specify valid externalIdFieldName")
        external(kind, str(name))
    ending = str(body.get("lineEnding", "LF"))
    made = Job(new_id("750"), kind.name, str(operation), str(name) if name else None, delimiter, ending)
    org.jobs[made.id] = made
    return answer(made.shown(org.version))


def listed(org: SalesforceSandbox, _: web.Request, __: Body) -> web.Response:
    return answer(
        {
            "done": True,
            "records": [job.shown(org.version) for job in org.jobs.values()],
            "nextRecordsUrl": None,
        }
    )


def _job(org: SalesforceSandbox, request: web.Request) -> Job:
    """A job, as far as it has come by now."""
    found = org.jobs.get(request.match_info["job"])
    if found is None:
        raise not_found()
    if found.state in ("UploadComplete", "InProgress"):
        over = time.monotonic() - found.started >= org.job_seconds
        found.state = "InProgress"
        if over:
            work(org, found)
    return found


def look(org: SalesforceSandbox, request: web.Request, _: Body) -> web.Response:
    return answer(_job(org, request).shown(org.version))


async def upload(org: SalesforceSandbox, request: web.Request) -> web.Response:
    job = _job(org, request)
    data = await request.read()
    if request.content_type != "text/csv":
        raise Whole("INVALIDJOB", "InvalidJob : the content type is not text/csv")
    if job.state != "Open" or job.file is not None:
        raise Whole(
            "INVALIDJOBSTATE", f"Found multiple contents for job: <{job.id}>, or it is not open: {job.state}"
        )
    if len(data) > LARGEST:
        raise Whole("ASYNC_REQUEST_TOO_LARGE", f"{len(data)} bytes are more than {LARGEST}", 413)
    job.file = data.decode()
    request[RECORDS] = job.file.count("\n")
    return web.Response(status=201)


def change(org: SalesforceSandbox, request: web.Request, body: Body) -> web.Response:
    job, state = _job(org, request), body.get("state")
    if state == "UploadComplete" and job.state == "Open" and job.file is not None:
        job.started = time.monotonic()
        job.state = "UploadComplete"
    elif state == "Aborted" and job.state in ("Open", "UploadComplete", "InProgress"):
        job.state = "Aborted"
    else:
        raise Whole("INVALIDJOBSTATE", f"a job that is {job.state} cannot become {state}")
    return answer(job.shown(org.version))


def remove(org: SalesforceSandbox, request: web.Request, _: Body) -> web.Response:
    job = _job(org, request)
    if job.state not in ("JobComplete", "Failed", "Aborted"):
        raise Whole("INVALIDJOBSTATE", f"a job that is {job.state} cannot be deleted")
    del org.jobs[job.id]
    return web.Response(status=204)


def results(org: SalesforceSandbox, request: web.Request, _: Body) -> web.Response:
    job, name = _job(org, request), request.match_info["results"].rstrip("/")
    if name not in FILES or job.state not in ("JobComplete", "Failed", "Aborted"):
        raise not_found()
    rows: list[list[str]] = org.spoil(list(getattr(job, FILES[name])))
    org.rng.shuffle(rows)
    heads = {
        "done": ["sf__Id", "sf__Created"],
        "failed": ["sf__Id", "sf__Error"],
        "left": ["sf__Id", "sf__Error"],
    }
    head = heads[FILES[name]] if FILES[name] != "left" else []
    return web.Response(text=_csv([[*head, *job.header], *rows]), content_type="text/csv")


def _csv(rows: Iterable[list[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return text.getvalue()


def work(org: SalesforceSandbox, job: Job) -> None:
    """Works through a job's file; a column that is not there fails it before the first row."""
    kind, reader = (
        org.kinds[job.object],
        csv.reader(io.StringIO(job.file or "", newline=""), delimiter=_DELIMITERS[job.delimiter]),
    )
    job.header, rows = next(reader, []), list(reader)
    unknown = [name for name in job.header if not _is_known(org, kind, name)]
    job.file, job.state = None, "JobComplete"
    if unknown or len(set(job.header)) < len(job.header):
        job.state, job.left = "Failed", rows
        job.message = f"InvalidBatch : Field name not found : {', '.join(unknown) or 'a name comes twice'}"
        return
    most = org.job_fails_after if org.job_fails_after is not None else len(rows)
    if most < len(rows):
        job.state, job.message, job.left = "Failed", "TooManyLockFailure : Too many lock failure", rows[most:]
    seen: set[str] = set()
    for row in rows[:most]:
        _work(org, job, kind, row, seen)


def _is_known(org: SalesforceSandbox, kind: SObject, name: str) -> bool:
    target, _, path = name.rpartition(":")
    relationship, dot, inner = path.partition(".")
    if not dot:
        return name in kind.fields and name != org.hidden_from_jobs
    parents = {item.relationship: item.targets for item in kind.fields.values() if item.relationship}
    targets = parents.get(relationship, [])
    named = target or (targets[0] if len(targets) == 1 else "")
    return named in targets and inner in org.kinds[named].fields


def _parented(kind: SObject, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a row with its parents nested, as in JSON; one that is cleared is so by its reference."""
    found = {name: value for name, value in values.items() if "." not in name}
    for name in values.keys() - found.keys():
        target, _, path = name.rpartition(":")
        relationship, _, inner = path.partition(".")
        if values[name] is None:
            found[kind.reference(relationship).name] = None
        else:
            found[relationship] = {inner: values[name]} | ({"attributes": {"type": target}} if target else {})
    return found


def _work(org: SalesforceSandbox, job: Job, kind: SObject, row: list[str], seen: set[str]) -> None:
    try:
        if len(row) != len(job.header):
            raise Refusal("INVALID_CSV_ROW", f"the row has {len(row)} cells, not {len(job.header)}")
        cells = zip(job.header, row, strict=True)
        values = {name: None if cell == "#N/A" else cell for name, cell in cells if cell != ""}
        said = _apply(org, job, kind, _parented(kind, values), seen)
        job.done.append([said["id"], "true" if said.get("created") else "false", *row])
    except (Refusal, Whole) as error:
        fields = error.fields if isinstance(error, Refusal) else []
        code = error.code if isinstance(error, Refusal) else "INVALID_TYPE_ON_FIELD_IN_RECORD"
        job.failed.append(["", f"{code}:{error}:{','.join(fields)} --", *row])


def _apply(
    org: SalesforceSandbox, job: Job, kind: SObject, values: dict[str, Any], seen: set[str]
) -> dict[str, Any]:
    """Raises: Refusal, Whole."""
    if job.operation == "upsert":
        return upsert(org, kind, str(job.external_id), values, seen, False)
    if job.operation == "insert":
        return {**insert(org, kind, values, False), "created": True}
    record = kind.at(str(values.pop("Id", "")))
    if job.operation == "delete":
        kind.remove(record)
    else:
        kind.write(resolved(org, kind, values), record)
    return {"id": record.id}
