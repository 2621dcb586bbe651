"""A simulated Marketo's bulk import of leads (REST guide: Bulk Lead Import): files wait for their turn, two are worked on at a
time, and another file has the rows that failed."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from backhaul.sandbox.kit import RECORDS
from backhaul.sandbox.marketo.store import Skipped, Values, Whole

if TYPE_CHECKING:
    from backhaul.sandbox.marketo.api import MarketoSandbox

LARGEST = 10 * 1024 * 1024
_QUEUE, _AT_ONCE = 10, 2
_REASON = "Import Failure Reason"


@dataclass(slots=True)
class Import:
    """One file."""

    number: int
    lookup: str
    file: str
    began: float
    header: list[str] = field(default_factory=list)
    failed: list[list[str]] = field(default_factory=list)
    done: int = 0
    status: str = "Queued"
    message: str = ""

    def shown(self) -> dict[str, Any]:
        return {
            "batchId": self.number, "importId": str(self.number), "status": self.status, "numOfLeadsProcessed": self.done,
            "numOfRowsFailed": len(self.failed), "numOfRowsWithWarning": 0, "message": self.message,
        }  # fmt: skip


async def create(sandbox: MarketoSandbox, request: web.Request) -> dict[str, Any]:
    """Raises: Whole."""
    if request.content_type != "multipart/form-data":
        raise Whole("612", "Invalid Content Type")
    form = await request.post()
    given = form.get("file")
    asked = {name: str(value) for name, value in (*form.items(), *request.query.items()) if name != "file"}
    if not isinstance(given, web.FileField) or asked.get("format") != "csv":
        raise Whole("1003", "A file, and format=csv, are required")
    body = given.file.read()
    if len(body) > LARGEST:
        raise Whole("1009", "The file is larger than 10 MB")
    lookup = asked.get("lookupField", "email")
    if not sandbox.instance.leads.indexed(lookup):
        raise Whole("1011", f"Field '{lookup}' not supported")
    _work_on(sandbox)
    if sum(item.status in ("Queued", "Importing") for item in sandbox.imports.values()) >= _QUEUE:
        raise Whole("1016", "Too many imports")
    text = body.decode()
    poison = sandbox.faults.poison_key
    if poison and f'"{poison}"' in text:
        raise Whole("709", "Refused by a switch of the sandbox")
    made = Import(1000 + len(sandbox.imports), lookup, text, time.monotonic())
    sandbox.imports[str(made.number)] = made
    request[RECORDS] = sum(1 for _ in csv.reader(io.StringIO(text, newline=""))) - 1
    return {"result": [made.shown()]}


async def look(sandbox: MarketoSandbox, request: web.Request) -> dict[str, Any]:
    """Raises: Whole."""
    return {"result": [_import(sandbox, request).shown()]}


async def failures(sandbox: MarketoSandbox, request: web.Request) -> web.Response:
    """Raises: Whole."""
    found = _import(sandbox, request)
    rows = sandbox.spoil(list(found.failed))
    return web.Response(text=_csv([[*found.header, _REASON], *rows]), content_type="text/csv")


def _import(sandbox: MarketoSandbox, request: web.Request) -> Import:
    """Raises: Whole. Which code an import has that is not there is from memory."""
    _work_on(sandbox)
    found = sandbox.imports.get(request.match_info["batch"])
    if found is None or time.monotonic() - found.began > sandbox.import_life:
        raise Whole("1013", "Object not found")
    return found


def _csv(rows: Iterable[list[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _work_on(sandbox: MarketoSandbox) -> None:
    """Two imports at a time, in the order in which they came."""
    now = time.monotonic()
    for item in [one for one in sandbox.imports.values() if one.status in ("Queued", "Importing")][:_AT_ONCE]:
        item.status = "Importing"
        if now - item.began >= sandbox.import_seconds:
            _work(sandbox, item)


def _work(sandbox: MarketoSandbox, item: Import) -> None:
    reader = csv.reader(io.StringIO(item.file, newline=""))
    item.header, rows, item.file = next(reader, []), list(reader), ""
    known = sandbox.instance.leads.attributes
    unknown = [name for name in item.header if name not in known]
    if unknown or sandbox.imports_fail:
        item.status, item.message = "Failed", f"Field '{(unknown or ['?'])[0]}' not found"
        return
    for row in rows:
        try:
            values = _values(sandbox, dict(zip(item.header, row, strict=True)))
            if sandbox.refuses(*[str(values.get(name)) for name in (item.lookup, "customerId")]):
                raise Skipped("1003", "Refused by a switch of the sandbox")
            sandbox.instance.sync_lead("createOrUpdate", item.lookup, values)
            item.done += 1
        except Skipped as error:
            item.failed.append([*row, str(error.reasons[0]["message"])])
    item.status = "Complete"
    item.message = f"Import completed, {item.done} records imported, {len(item.failed)} failed"


def _values(sandbox: MarketoSandbox, row: Values) -> Values:
    """What a row's cells mean. An empty one clears, or leaves the field alone: the guide does not say which."""
    kinds = sandbox.instance.leads.attributes
    found: Values = {}
    for name, cell in row.items():
        if cell == "" and not sandbox.empty_clears:
            continue
        boolean = kinds[name].kind == "boolean" and cell.lower() in ("true", "false", "1", "0")
        found[name] = cell.lower() in ("true", "1") if boolean else cell or None
    return found
