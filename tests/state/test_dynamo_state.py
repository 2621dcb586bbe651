"""The state in a DynamoDB table, over moto's server: what is its own, beside what every state promises."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import HANGS

from backhaul.changes import Stage
from backhaul.errors import StateError
from backhaul.runs.recovery import settlements
from backhaul.state.dynamo import clock as clocks
from backhaul.state.dynamo import files
from backhaul.state.dynamo.clock import ServerClock
from backhaul.state.dynamo.creation import VERSION
from backhaul.state.dynamo.failures import storing
from backhaul.state.dynamo.state import DynamoState
from backhaul.state.dynamo.statements import LISTS, READS, SAFE_ORDER, WRITES
from backhaul.state.dynamo.table import put
from backhaul.state.protocol import Fold
from backhaul.state.statements import queries

WRITER = Path(__file__).parent / "writer.py"


@pytest.fixture
def dynamo(dynamodb_state: str) -> Iterator[DynamoState]:
    opened = DynamoState(dynamodb_state)
    yield opened
    opened.close()


def items(state: DynamoState) -> list[tuple[str, str]]:
    """Every item's keys, but for what the state itself is made of."""
    found = state.table.call("scan", TableName=state.table.name)["Items"]
    keys = sorted((item["pk"]["S"], item["sk"]["S"]) for item in found)
    return [key for key in keys if key[0] not in ("state", "counter", "syncs")]


def test_every_statement_is_there() -> None:
    """A statement of the SQL states that this one lacks fails here and not in a run."""
    assert {*READS, *WRITES, *LISTS} == {*queries("?")}
    assert len({*READS, *WRITES, *LISTS}) == len(READS) + len(WRITES) + len(LISTS)
    takes_rows = {name for name, sql in queries("<rows>").items() if "<rows>" in sql}
    assert {*LISTS} == takes_rows
    assert {*SAFE_ORDER} <= takes_rows


@pytest.mark.parametrize("refused", [98, 99, 150])
def test_killed_between_the_transactions_of_one_group(
    dynamo: DynamoState, dynamodb_state: str, refused: int
) -> None:
    """I4, I5: an outcome with more dead letters than a transaction takes. Wherever the process dies, an intent is never gone
    without its outcome, and a letter is there only for what was refused."""
    environment = {**os.environ, "BACKHAUL_FAILPOINT": "between_transactions"}
    line = [sys.executable, WRITER, dynamodb_state, f"refused:{refused}"]
    process = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=HANGS)
    fits = refused + 2 <= 100
    assert process.returncode == (0 if fits else -9), process.stderr
    intents = dynamo.do("intents", {"plan": "p1"})
    outcomes = dynamo.do("outcomes", {"plan": "p1"})
    letters = {row["key"] for row in dynamo.do("dead_keys", {"scope": "s"})}
    assert intents or outcomes
    assert letters <= {f"{row}" for row in range(refused)}
    if outcomes:
        assert len(letters) == refused
        stages = [item.status for item in settlements(dynamo, "p1")]
        assert stages == [Stage.ACKNOWLEDGED], "an outcome that is there counts, with its intent or without"
    else:
        assert [item.status for item in settlements(dynamo, "p1")] == [Stage.UNKNOWN]
    assert bool(outcomes) == (refused < 100)


def test_answers_of_several_pages_are_read_whole(dynamo: DynamoState) -> None:
    """DynamoDB ends a page after 1 MB."""
    noise = random.Random(1)
    at = "2026-01-01T00:00:00.000Z"
    for key in range(12):
        payload = noise.randbytes(100_000).hex()  # hex packs by half
        row = (
            "s",
            f"{key:02d}",
            "upsert",
            "bad",
            "no",
            1,
            at,
            at,
            payload,
            "h",
            0,
            "p",
            None,
            "plain",
            "record",
            0,
            "dead",
            "m",
            "s1",
        )
        dynamo.do_all("bury", [row])
    pages = dynamo.table.client.query(
        TableName=dynamo.table.name,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "letters"}},
    )
    assert "LastEvaluatedKey" in pages
    rows = dynamo.do("dead_letters", {"scope": None, "id": None})
    assert [row["key"] for row in rows] == [f"{key:02d}" for key in range(12)]
    assert {len(row["payload"]) for row in rows} == {200_000}


def test_a_payload_too_large_for_an_item_is_kept_by_reference(dynamo: DynamoState) -> None:
    """I19: one large record does not end the run."""
    at = "2026-01-01T00:00:00.000Z"
    huge = random.Random(1).randbytes(400_000).hex()
    dynamo.do_all(
        "bury",
        [
            (
                "s",
                "k" * 3000,
                "upsert",
                "bad",
                "no",
                1,
                at,
                at,
                huge,
                "h",
                0,
                "p",
                None,
                "abc",
                "record",
                0,
                "dead",
                "m",
                "s1",
            )
        ],
    )
    (row,) = dynamo.do("dead_letters", {"scope": "s", "id": None})
    assert (row["payload"], row["seal"], row["key"]) == ("", "", "k" * 3000)
    assert dynamo.do("letter_of", {"scope": "s", "key": "k" * 3000})


def test_a_file_is_there_when_it_is_there_whole(dynamo: DynamoState, tmp_path: Path) -> None:
    """Parts that a process which died has left are nobody's file, and go with the next of that name."""
    source, found = tmp_path / "source", tmp_path / "there" / "found"
    source.write_bytes(random.Random(1).randbytes(900_000))
    files.upload(dynamo.table, "p1", source)
    assert not dynamo.fetch_file("p1", found)
    assert not found.exists()
    source.write_bytes(random.Random(2).randbytes(800_000))
    dynamo.keep_file("p1", source)
    assert len([pk for pk, _ in items(dynamo) if pk.startswith("part/")]) == 3
    assert dynamo.fetch_file("p1", found)
    assert found.read_bytes() == source.read_bytes()
    dynamo.drop_plan("p1", found)
    assert items(dynamo) == []


def test_a_fold_of_one_number_exists_once(dynamo: DynamoState, tmp_path: Path) -> None:
    """I26: of two workers that fold at once, one stores; a base takes all that was before it away."""
    file = tmp_path / "f"
    for number in range(1, 4):
        file.write_bytes(b"%d" % number)
        dynamo.add_fold(Fold("s", number, number == 1, "l", 1, "{}"), file)
    with pytest.raises(StateError, match="another process changed the state"):
        dynamo.add_fold(Fold("s", 3, False, "l", 1, "{}"), file)
    assert [fold.fold for fold in dynamo.folds("s")] == [1, 2, 3]
    assert dynamo.fetch_file("ledger/s/3", tmp_path / "third")
    dynamo.add_fold(Fold("s", 4, True, "l", 1, "{}"), file)
    assert [fold.fold for fold in dynamo.folds("s")] == [4]
    assert len([pk for pk, _ in items(dynamo) if pk.startswith("part/")]) == 1


def test_a_budget_is_exchanged_by_one_at_a_time(dynamo: DynamoState, dynamodb_state: str) -> None:
    """I28: nothing that one worker takes is lost in what another stores."""

    def act(document: dict[str, Any], now: float) -> float:
        document["spent"] = document.get("spent", 0) + 1
        seen, document["at"] = document.get("at", 0.0), now
        assert now >= seen, "the time went back"
        return now

    async def spend() -> list[float]:
        state = DynamoState(dynamodb_state)
        buckets = state.buckets()
        times = [await buckets.exchange("b", act) for _ in range(10)]
        await buckets.close()
        state.close()
        return times

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: asyncio.run(spend()), range(4)))
    document, _ = asyncio.run(dynamo.buckets().peek("b"))
    assert document["spent"] == 40


@given(
    st.floats(-1e6, 1e6),
    st.lists(st.tuples(st.floats(0.001, 0.9), st.floats(0, 0.2), st.floats(0, 0.2)), min_size=1, max_size=40),
)
def test_the_servers_time_is_within_the_bounds(
    offset: float, answers: list[tuple[float, float, float]]
) -> None:
    """I32: whatever each way takes, and whatever this machine's clocks stand at."""
    clock, now = ServerClock(), 1000.0
    for pause, there, back in answers:
        now += pause
        said = clocks_date(1_800_000_000 + offset + now + there)
        clock.heard(said, now, now + there + back)
        now += there + back
    low, high = clock._low, clock._high
    assert low - 1e-3 <= 1_800_000_000 + offset <= high + 1e-3
    assert clock.doubt <= 1 + 0.4 + 1e-3


def clocks_date(seconds: float) -> str:
    from email.utils import formatdate

    return formatdate(int(seconds), usegmt=True)


def test_a_clock_that_was_set_is_believed_anew() -> None:
    """I32"""
    clock = ServerClock()
    clock.heard(clocks_date(1_800_000_000), 10.0, 10.1)
    clock.heard(clocks_date(1_700_000_000), 11.0, 11.1)
    assert abs((clock._low + clock._high) / 2 + 11.05 - 1_700_000_000) < 1.1
    assert clocks._LOOK < 3


class Answering(BaseHTTPRequestHandler):
    """DynamoDB that answers the first requests with an error."""

    code, first, asked = "", 0, 0
    headers_of_errors: ClassVar[dict[str, str]] = {"Content-Type": "application/x-amz-json-1.0"}

    def do_POST(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        failing = self.asked <= self.first
        body = (
            b'{"__type": "com.amazonaws.dynamodb.v20120810#%s", "message": "no"}' % self.code.encode()
            if failing
            else b'{"Item": {"pk": {"S": "state"}, "sk": {"S": "version"}, "version": {"N": "%d"}}}' % VERSION
        )
        self.send_response(400 if failing else 200)
        self.send_header("Content-Length", str(len(body)))
        for name, value in self.headers_of_errors.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def answering(dynamodb_state: str) -> Iterator[Any]:
    """Starts a server that answers the first so many requests with an error; gives the state's address."""
    servers = []

    def start(code: str, first: int) -> str:
        handler = type("Handler", (Answering,), {"code": code, "first": first})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        return f"dynamodb://some-table?region=eu-central-1&endpoint=http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("AccessDeniedException", "may not do what the state needs"),
        ("UnrecognizedClientException", "does not know these credentials"),
        ("ExpiredTokenException", "they have expired"),
        ("InvalidSignatureException", "the secret key is wrong, or this host's clock is"),
        (
            "ResourceNotFoundException",
            "there is no table some-table in this region, and it could not be made",
        ),
        ("SomethingNew", "cannot be used: SomethingNew: no"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(answering: Any, code: str, said: str) -> None:
    with pytest.raises(StateError) as error:
        DynamoState(answering(code, 99))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "s3cret" not in f"{error.value} {error.value.hint}"


@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "ThrottlingException", "TransactionConflictException"]
)
def test_what_passes_is_waited_out(answering: Any, code: str) -> None:
    """Throttling; and another write's transaction, which a lease's beat meets again and again."""
    DynamoState(answering(code, 2)).close()


def test_who_has_no_credentials_is_told_so(dynamodb_state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "PROFILE", "SESSION_TOKEN"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(f"AWS_{name}", "/nowhere")
    with pytest.raises(StateError, match="asks for credentials, and there are none"):
        DynamoState(dynamodb_state)
    for name in ("REGION", "DEFAULT_REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    with pytest.raises(StateError, match="is in no region"):
        DynamoState("dynamodb://table")


def test_an_endpoint_that_does_not_answer_is_named() -> None:
    from botocore.exceptions import EndpointConnectionError

    with (
        pytest.raises(StateError, match="does not answer: is the region or the endpoint right"),
        storing("t"),
    ):
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


def test_a_table_of_somebody_else_is_left_as_it_is(dynamo: DynamoState, dynamodb_state: str) -> None:
    """I35"""
    name = dynamo.table.name
    dynamo.table.do(put("truck", "1", {}))
    dynamo.table.client.delete_item(TableName=name, Key={"pk": {"S": "state"}, "sk": {"S": "version"}})
    with pytest.raises(StateError, match="not a backhaul state"):
        DynamoState(dynamodb_state)
    assert items(dynamo) == [("truck", "1")]
    key = [{"AttributeName": "id", "KeyType": "HASH"}]
    dynamo.table.client.create_table(
        TableName=f"{name}-other",
        KeySchema=key,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )
    with pytest.raises(StateError, match="has other keys than a backhaul state"):
        DynamoState(dynamodb_state.replace(name, f"{name}-other"))


def test_many_may_make_it_at_the_same_moment(dynamodb_state: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for state in pool.map(lambda _: DynamoState(dynamodb_state), range(4)):
            state.close()
