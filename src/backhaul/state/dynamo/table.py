"""Reads and conditional writes of one table: pages, batches and transactions, each tried again where that is safe."""

from __future__ import annotations

import random
import secrets
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from backhaul.errors import StateError
from backhaul.failpoints import failpoint
from backhaul.state.dynamo.address import connect
from backhaul.state.dynamo.clock import ServerClock
from backhaul.state.dynamo.failures import Busy, Refuted, storing
from backhaul.values import TableAddress

Key = tuple[str, str]
_LONG = 1 << 10
"""Bytes of a text that is stored compressed."""
_WRITES, _BYTES = 100, 3_500_000
"""Of one transaction (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html: 100
items, 4 MB)."""
_BATCH = 100
_PATIENCE = 20.0
"""Seconds that a transaction is tried again where another one, or the table's throughput, is in its way."""
_AGAIN = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded"}


class Item(dict[str, Any]):
    """What an item holds, by name; None where it holds nothing of that name."""

    def __missing__(self, name: str) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Write:
    """One write of a transaction: `action` as TransactWriteItems takes it, without the table's name."""

    key: Key
    action: dict[str, dict[str, Any]]
    size: int = 0
    told: Item | None = None
    """What the statement says of it, where it says anything."""


def put(pk: str, sk: str, item: Mapping[str, Any], *, new: bool = False) -> Write:
    """Stores an item in place of any other; `new`: there must be none."""
    fields = encode(item)
    action: dict[str, Any] = {"Item": {**_key((pk, sk)), **fields}}
    if new:
        action["ConditionExpression"] = "attribute_not_exists(pk)"
    return Write((pk, sk), {"Put": action}, _size(fields))


def delete(pk: str, sk: str) -> Write:
    return Write((pk, sk), {"Delete": {"Key": _key((pk, sk))}})


def change(
    pk: str, sk: str, values: Mapping[str, Any], *,
    first: Mapping[str, Any] | None = None, add: Mapping[str, int] | None = None, condition: str = "",
) -> Write:  # fmt: skip
    """Changes some values of an item. `first`: where it has none; `add`: to those it has. Without a condition the item is made
    where there is none; a condition names values as `#name` and those given as `:name`."""
    given = {**values, **(first or {}), **(add or {})}
    kept = {name: value for name, value in given.items() if value is not None}
    sets = [f"#{name} = :{name}" for name in values if name in kept]
    sets += [f"#{name} = if_not_exists(#{name}, :{name})" for name in first or ()]
    gone = [f"#{name}" for name in values if name not in kept]
    parts = [("SET", sets), ("REMOVE", gone), ("ADD", [f"#{name} :{name}" for name in add or ()])]
    fields = encode(kept)
    action: dict[str, Any] = {
        "Key": _key((pk, sk)),
        "UpdateExpression": " ".join(f"{verb} {', '.join(items)}" for verb, items in parts if items),
        "ExpressionAttributeNames": {f"#{name}": name for name in given},
    }
    if fields:
        action["ExpressionAttributeValues"] = {f":{name}": value for name, value in fields.items()}
    if condition:
        action["ConditionExpression"] = condition
    return Write((pk, sk), {"Update": action}, _size(fields))


def only_if(write: Write, condition: str, names: Iterable[str], values: Mapping[str, Any]) -> Write:
    """A write that is stored only where a condition over `#name` and `:value` holds."""
    ((verb, action),) = write.action.items()
    known = {"ConditionExpression": condition}
    given: dict[str, dict[str, Any]] = {
        "ExpressionAttributeNames": {f"#{name}": name for name in names},
        "ExpressionAttributeValues": {f":{name}": value for name, value in encode(values).items()},
    }
    merged = {name: {**action.get(name, {}), **more} for name, more in given.items()}
    return Write(write.key, {verb: {**action, **known, **merged}}, write.size)


def check(pk: str, sk: str) -> Write:
    """Stores nothing; for `only_if`, whose condition must hold for the transaction to be stored."""
    return Write((pk, sk), {"ConditionCheck": {"Key": _key((pk, sk))}})


class Table:
    """One table, used by any number of threads."""

    def __init__(self, address: TableAddress) -> None:
        self.name = address.table
        self.clock = ServerClock()
        self.letters: dict[int, str] = {}
        """Where dead letters are, by number: a letter never moves."""
        self.client = connect(address)

    def close(self) -> None:
        self.client.close()

    def call(self, operation: str, **arguments: Any) -> Any:
        """One request of the driver's, made again while a transaction has the item.

        Raises:
            StateError
        """
        for pause in _pauses():
            with suppress(Busy):
                return self._asked(operation, arguments)
            time.sleep(pause)
        return self._asked(operation, arguments)

    def _asked(self, operation: str, arguments: dict[str, Any]) -> Any:
        with storing(self.name):
            sent = time.monotonic()
            answer = getattr(self.client, operation)(**arguments)
            date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            if date and not answer["ResponseMetadata"].get("RetryAttempts"):
                self.clock.heard(date, sent, time.monotonic())
            return answer

    def get(self, pk: str, sk: str, *, exact: bool = True) -> Item | None:
        """An item; `exact`: as it is now, not as it may have been a moment ago."""
        answer = self.call("get_item", TableName=self.name, Key=_key((pk, sk)), ConsistentRead=exact)
        return decode(answer["Item"]) if "Item" in answer else None

    def query(
        self, pk: str, prefix: str = "", *, newest: bool = False, page: int | None = None, names: Sequence[str] = ()
    ) -> Iterator[Item]:  # fmt: skip
        """The items of one pk in order of sk, with sk as `sk`; `newest` first; `page`: how many at a time; `names`: only
        these values of each."""
        values = {":pk": pk, ":prefix": prefix} if prefix else {":pk": pk}
        arguments: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": "pk = :pk AND begins_with(sk, :prefix)" if prefix else "pk = :pk",
            "ExpressionAttributeValues": encode(values),
            "ConsistentRead": True,
            "ScanIndexForward": not newest,
            **({"Limit": page} if page else {}),
        }
        if names:
            arguments["ProjectionExpression"] = ", ".join(f"#{name}" for name in names)
            arguments["ExpressionAttributeNames"] = {f"#{name}": name for name in names}
        yield from self._pages("query", arguments)

    def scan(self, kind: str, prefix: str) -> Iterator[Item]:
        """The items of every pk that begins with `kind`, and whose sk begins with `prefix`. Reads the whole table."""
        yield from self._pages("scan", {
            "TableName": self.name,
            "FilterExpression": "begins_with(pk, :kind) AND begins_with(sk, :prefix)",
            "ExpressionAttributeValues": encode({":kind": kind, ":prefix": prefix}),
            "ConsistentRead": True,
        })  # fmt: skip

    def _pages(self, operation: str, arguments: dict[str, Any]) -> Iterator[Item]:
        while True:
            answer = self.call(operation, **arguments)
            yield from map(decode, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def all_of(self, keys: Iterable[Key], *, at_once: int = _BATCH) -> dict[Key, Item]:
        """Those of many items that there are."""
        left, found = list(dict.fromkeys(keys)), dict[Key, Item]()
        pauses = _pauses()
        while left:
            some, left = left[:at_once], left[at_once:]
            wanted = {self.name: {"Keys": [_key(key) for key in some], "ConsistentRead": True}}
            answer = self.call("batch_get_item", RequestItems=wanted)
            for item in map(decode, answer["Responses"].get(self.name, ())):
                found[item["pk"], item["sk"]] = item
            missed = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", ())
            left += [(key["pk"]["S"], key["sk"]["S"]) for key in missed]
            if len(missed) == len(some):  # throttled: nothing came
                time.sleep(next(pauses, 1.0))
        return found

    def store(self, writes: Sequence[Write], fence: Write | None = None) -> None:
        """Stores writes: all in one transaction, as long as they fit into one, else in several in the order given. Of writes
        to one item the last counts. Each transaction is stored only while the condition of `fence` holds.

        Raises:
            Refuted: a condition did not hold; of `fence` where the index is -1.
            StateError: nobody knows whether the transaction was stored.
        """
        kept: dict[Key, Write] = {}
        for write in writes:
            kept.pop(write.key, None)
            kept[write.key] = write
        for number, some in enumerate(_parted(list(kept.values()), _WRITES - (fence is not None))):
            if number:
                failpoint("between_transactions")
            self._transact(some, fence)

    def _transact(self, writes: Sequence[Write], fence: Write | None) -> None:
        actions = [
            {verb: {"TableName": self.name, **action} for verb, action in write.action.items()}
            for write in [*([fence] if fence else []), *writes]
        ]
        token = secrets.token_hex(16)
        for pause in _pauses():
            if self._stored(actions, token, 1 if fence else 0):
                return
            time.sleep(pause)
        raise StateError(f"the state's DynamoDB ({self.name}) is too busy to store anything",
                         hint="nothing was sent after this; run again")  # fmt: skip

    def _stored(self, actions: list[dict[str, Any]], token: str, before: int) -> bool:
        """One try. False: it is to be tried again, under the same token, so that it is stored once."""
        from botocore.exceptions import ClientError

        with storing(self.name):
            try:
                self.client.transact_write_items(TransactItems=actions, ClientRequestToken=token)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code == "TransactionInProgressException":
                    return False
                if code != "TransactionCanceledException":
                    raise
                codes = [str(reason.get("Code")) for reason in error.response.get("CancellationReasons", ())]
                failed = next((at for at, code in enumerate(codes) if "ConditionalCheckFailed" in code), None)
                if failed is not None:
                    raise Refuted(failed - before) from None
                if any(code in _AGAIN for code in codes):
                    return False
                raise
            return True

    def number(self, of: str) -> int:
        """The next number of a kind: grows with every call of every process."""
        return self.numbers(of, 1)

    def numbers(self, of: str, count: int) -> int:
        """The first of so many numbers in a row."""
        action = change("counter", of, {}, add={"n": count}).action["Update"]
        answer = self.call("update_item", TableName=self.name, ReturnValues="UPDATED_NEW", **action)
        return int(decode(answer["Attributes"])["n"]) - count + 1

    def do(self, write: Write) -> None:
        """One write by itself.

        Raises:
            Refuted: its condition did not hold.
        """
        ((verb, action),) = write.action.items()
        self.call(f"{verb.lower()}_item", TableName=self.name, **action)


def _pauses() -> Iterator[float]:
    """Seconds to wait before each next try: longer each time, more or less, and no more once patience has ended."""
    deadline, pause = time.monotonic() + _PATIENCE, 0.02
    while time.monotonic() < deadline:
        yield random.uniform(0, pause)
        pause = min(pause * 2, 1.0)


def _parted(writes: Sequence[Write], most: int) -> Iterator[list[Write]]:
    part, size = list[Write](), 0
    for write in writes:
        if part and (len(part) == most or size + write.size > _BYTES):
            yield part
            part, size = [], 0
        part.append(write)
        size += write.size
    if part:
        yield part


def _key(key: Key) -> dict[str, Any]:
    return {"pk": {"S": key[0]}, "sk": {"S": key[1]}}


def _size(fields: Mapping[str, dict[str, Any]]) -> int:
    """Bytes, more or less."""
    return 64 + sum(len(name) + len(value) for name, field in fields.items() for value in field.values()
                    if isinstance(value, str | bytes))  # fmt: skip


def encode(item: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values as DynamoDB's; None is no value. A long text is stored compressed.

    Raises:
        StateError: a text that UTF-8 has not.
    """
    try:
        return {name: _encoded(value) for name, value in item.items() if value is not None}
    except UnicodeEncodeError as error:
        raise StateError(f"cannot be stored: {error}") from None


def _encoded(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        text = value.encode()
        return {"B": b"z" + zlib.compress(text, 3)} if len(text) > _LONG else {"S": value}
    if isinstance(value, bytes):
        return {"B": b"b" + value}
    return {"N": repr(int(value) if isinstance(value, bool) else value)}


def decode(item: Mapping[str, dict[str, Any]]) -> Item:
    return Item({name: _decoded(value) for name, value in item.items()})


def _decoded(value: dict[str, Any]) -> Any:
    ((kind, held),) = value.items()
    if kind == "N":
        return float(held) if set(held) & set(".eEn") else int(held)
    if kind == "B":
        return zlib.decompress(held[1:]).decode() if held[:1] == b"z" else held[1:]
    return held
