"""Makes the table where there is none, and makes sure that it is a backhaul state of this release."""

from __future__ import annotations

import time
from contextlib import suppress

from backhaul.errors import StateError
from backhaul.state.dynamo.failures import NoTable, Refuted
from backhaul.state.dynamo.table import Item, Table, put
from backhaul.state.protocol import before_scopes

VERSION = 2
"""What items look like."""
_READY = 60.0
"""Seconds that a new table may take."""
_KEYS = [("pk", "HASH"), ("sk", "RANGE")]
_COMMAND = (
    "aws dynamodb create-table --table-name {name} --billing-mode PAY_PER_REQUEST "
    "--attribute-definitions AttributeName=pk,AttributeType=S AttributeName=sk,AttributeType=S "
    "--key-schema AttributeName=pk,KeyType=HASH AttributeName=sk,KeyType=RANGE"
)


def prepare(table: Table) -> None:
    """Makes the state ready.

    Raises:
        StateError: the table cannot be made, is somebody else's, or a newer release's.
    """
    try:
        found = table.get("state", "version")
    except NoTable:
        _create(table)
        found = None
    if found is None:
        found = _begin(table)
    if found["version"] < VERSION:
        raise before_scopes(f"the state in table {table.name}")
    if found["version"] > VERSION:
        raise StateError(
            f"the state was written by a newer backhaul (schema {found['version']}, this one knows {VERSION})",
            hint="upgrade backhaul; the state was left as it is",
        )


def _create(table: Table) -> None:
    try:
        table.call(
            "create_table",
            TableName=table.name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in _KEYS],
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in _KEYS],
        )
    except StateError as error:
        if "being made" not in str(error):  # by another worker: then it is waited for
            command = _COMMAND.format(name=table.name)
            raise StateError(f"there is no table {table.name} in this region, and it could not be made: {error}",
                             hint=f"name another region, or let somebody run: {command}") from None  # fmt: skip
    deadline = time.monotonic() + _READY
    while True:
        with suppress(NoTable):
            return _ready(table)
        if time.monotonic() > deadline:
            raise StateError(
                f"the table {table.name} is being made and not ready yet", hint="run again in a moment"
            )
        time.sleep(0.5)


def _ready(table: Table) -> None:
    table.get("state", "version")


def _begin(table: Table) -> Item:
    if table.call("scan", TableName=table.name, Limit=1)["Items"]:
        found = table.get("state", "version")  # another worker may just have begun it
        if found is None:
            raise StateError(f"the table {table.name} is not a backhaul state; it was left as it is")
        return found
    with suppress(Refuted):
        table.do(put("state", "version", {"version": VERSION}, new=True))
    return table.get("state", "version") or Item(version=VERSION)
