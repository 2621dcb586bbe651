"""The conformance suite for destinations: subclass `DestinationSuite`, give it a `remote`, and pytest does the rest.

Every test runs the real engine: a DuckDB warehouse, a project, the ledger, the journal and delivery, against the author's
twin of the remote system. What a destination cannot do is declared in `gaps` with a reason; a declared gap that works
fails, so that the matrix stays true.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest

_OF_INSERTS = "creates_in_doubt_make_one_record_each"
_OF_UPDATES = (
    "only_what_changed_is_sent", "a_null_clears_the_field", "a_record_lost_at_the_destination_is_made_again",
    "a_record_that_left_the_model_is_deleted",
)  # fmt: skip
"""What destinations do that have the modes for it."""
FAULTS = (
    "outage",
    "throttle",
    "reset_after",
    "silent",
    "hollow",
    "refuse",
    "poison",
    "reject_all",
    "payment",
)


class Remote(Protocol):
    """The twin of a remote system, running. `connection` is its entry in backhaul.yml."""

    connection: Mapping[str, Any]

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        """What it holds, by identifier, values as the remote gives them."""

    def requests(self) -> int:
        """Write requests it has seen."""

    def lose(self, key: str) -> None:
        """Takes a record away, as somebody else would."""

    def fault(self, name: str | None, key: str = "") -> None:
        """Switches one fault of FAULTS on, for every write from now on; None: all off. `refuse` refuses the record with
        this key inside an answer, `poison` the whole request that holds it, `silent` leaves half the records out of the
        answer, `hollow` applies nothing and answers each request with 200 and an empty object, `reset_after` applies and then
        resets every other request, `throttle` answers every other one with 429."""


@dataclass(frozen=True)
class Case:
    """What is synced: an object, its identifier, and fields with the SQL type of the model's column."""

    object: str
    identify: str
    text: str
    """A text field that can be cleared."""
    number: str
    """A number field."""
    keys: tuple[str, ...] = tuple(f"k{number}" for number in range(250))
    """Identifiers, as text; more than two batches where the batch is small."""
    awkward: tuple[str, ...] = ("o'hara", "a/b?c=d&e", "ключ", "日本 語", '"quoted"', "emoji-🚚")
    modes: tuple[str, ...] = ("upsert", "mirror")
    also: Mapping[str, str] = field(default_factory=dict)
    """More fields of every record, as SQL, where the destination requires them."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More keys of the sync's file."""


class DestinationSuite:
    """Subclass it as `TestMine`, set `case`, and give a fixture `remote`."""

    case: ClassVar[Case]
    gaps: ClassVar[Mapping[str, str]] = {}
    """Test name without `test_` -> why the destination cannot do it."""

    @classmethod
    def offers(cls, test: str) -> bool:
        """Whether the destination has what this test (its name without `test_`) is about."""
        modes = set(cls.case.modes)
        return "insert" in modes if test == _OF_INSERTS else test not in _OF_UPDATES or modes != {"insert"}

    @pytest.fixture
    def remote(self) -> Any:
        raise NotImplementedError("give a fixture `remote` that yields a running twin")

    @pytest.fixture(autouse=True)
    def _gap(self, request: pytest.FixtureRequest) -> None:
        unknown = [name for name in self.gaps if not hasattr(self, f"test_{name}")]
        assert not unknown, f"gaps names no test: {unknown}"
        test = request.node.originalname.removeprefix("test_")
        if not self.offers(test):
            pytest.skip(f"the case has only the modes {', '.join(self.case.modes)}")
        if reason := self.gaps.get(test):
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture
    def site(self, remote: Remote, tmp_path: Path) -> Site:
        return Site(tmp_path, self.case, remote)

    def test_written_records_can_be_read_back(self, site: Site) -> None:
        site.model({key: (f"text {key}", number) for number, key in enumerate(self.case.keys)})
        run = site.run()
        assert (run.status, run.delivered) == ("succeeded", len(self.case.keys)), said_of(run)
        assert run.verified is not None
        assert run.verified.checked > 0
        assert not run.verified.mismatches, said_of(run)
        assert set(site.remote.records()) == set(self.case.keys)

    def test_an_unchanged_model_sends_nothing(self, site: Site) -> None:
        site.model(dict.fromkeys(self.case.keys[:5], ("same", 1)))
        site.run()
        before = site.remote.requests()
        assert (run := site.run()).status == "succeeded", said_of(run)
        assert site.remote.requests() == before

    def test_every_run_meets_the_same_account(self, site: Site) -> None:
        site.model(dict.fromkeys(self.case.keys[:2], ("same", 1)))
        met = [(run.account, run.ledger) for run in (site.run(), site.run())]
        assert met[0] == met[1]
        assert all(met[0])

    def test_only_what_changed_is_sent(self, site: Site) -> None:
        rows = dict.fromkeys(self.case.keys[:20], ("same", 1))
        site.model(rows)
        site.run()
        site.model({**rows, self.case.keys[3]: ("other", 1)})
        run = site.run()
        assert (run.changes, run.requests) == ({"create": 0, "update": 1, "delete": 0}, 1)
        assert site.held(self.case.keys[3], self.case.text) == "other"

    def test_a_null_clears_the_field(self, site: Site) -> None:
        key = self.case.keys[0]
        site.model({key: ("filled", 1)})
        site.run()
        site.model({key: (None, 1)})
        assert (run := site.run()).status == "succeeded", said_of(run)
        assert site.held(key, self.case.text) in (None, "")

    def test_awkward_keys_and_texts_survive(self, site: Site) -> None:
        site.model({key: (f"{key} \\ \n\t, ;", 1) for key in self.case.awkward})
        run = site.run()
        assert (run.status, run.delivered) == ("succeeded", len(self.case.awkward)), said_of(run)
        assert run.verified is None or not run.verified.mismatches, said_of(run)
        assert set(site.remote.records()) == set(self.case.awkward)

    def test_a_record_that_left_the_model_is_deleted(self, site: Site) -> None:
        site.model(dict.fromkeys(self.case.keys[:3], ("x", 1)), mode="mirror")
        site.run()
        site.model(dict.fromkeys(self.case.keys[:2], ("x", 1)), mode="mirror")
        run = site.run()
        assert run.changes["delete"] == 1, said_of(run)
        assert set(site.remote.records()) == set(self.case.keys[:2])

    def test_a_record_lost_at_the_destination_is_made_again(self, site: Site) -> None:
        key, others = self.case.keys[0], dict.fromkeys(self.case.keys[1:5], ("x", 1))
        site.model({key: ("x", 1), **others})
        site.run()
        site.remote.lose(key)
        site.model({key: ("newer", 1), **others})
        run = site.run()
        assert (run.status, run.delivered) == ("succeeded", 1), said_of(run)
        assert site.held(key, self.case.text) == "newer"

    def test_one_bad_record_does_not_block_its_batch(self, site: Site) -> None:
        site.remote.fault("refuse", self.case.keys[7])
        self._all_but(site, self.case.keys[7])

    def test_a_refused_batch_is_narrowed_to_the_bad_record(self, site: Site) -> None:
        site.remote.fault("poison", self.case.keys[7])
        self._all_but(site, self.case.keys[7])

    def _all_but(self, site: Site, bad: str) -> None:
        keys = self.case.keys[:40]
        site.model(dict.fromkeys(keys, ("x", 1)))
        run = site.run()
        assert (run.status, run.delivered, run.rejected) == ("partial", len(keys) - 1, 1), said_of(run)
        (letter,) = run.dead_letters()
        assert letter["error"]["message"]
        assert letter["payload"]
        site.remote.fault(None)
        assert set(site.remote.records()) == set(keys) - {bad}

    def test_an_outage_rejects_nobody(self, site: Site) -> None:
        site.remote.fault("outage")
        site.model(dict.fromkeys(self.case.keys[:10], ("x", 1)))
        run = site.run()
        assert run.status in ("failed", "deferred", "partial")
        assert (run.delivered, run.rejected) == (0, 0)
        site.remote.fault(None)
        assert (run := site.run()).status == "succeeded", said_of(run)
        assert set(site.remote.records()) == set(self.case.keys[:10])

    def test_a_used_up_quota_defers_and_rejects_nobody(self, site: Site) -> None:
        """HTTP 402."""
        keys = self.case.keys[:30]
        site.remote.fault("payment")
        site.model(dict.fromkeys(keys, ("x", 1)))
        run = site.run()
        assert (run.status, run.deferred, run.rejected) == ("deferred", len(keys), 0), said_of(run)
        assert "quota of your plan" in run.error
        assert run.dead_letters() == []
        site.remote.fault(None)
        assert (run := site.run()).status == "succeeded", said_of(run)
        assert set(site.remote.records()) == set(keys)

    def test_throttling_is_waited_out(self, site: Site) -> None:
        self._converges(site, "throttle")

    @pytest.mark.parametrize("fault", ["reset_after", "silent"])
    def test_lost_and_incomplete_answers_are_made_good(self, site: Site, fault: str) -> None:
        self._converges(site, fault)

    def test_an_answer_that_names_nobody_delivers_nobody(self, site: Site) -> None:
        site.remote.fault("hollow")
        site.model(dict.fromkeys(self.case.keys[:10], ("x", 1)))
        run = site.run()
        assert (run.delivered, run.rejected) == (0, 0), said_of(run)
        site.remote.fault(None)
        if set(self.case.modes) != {"insert"}:
            assert (run := site.run()).status == "succeeded", said_of(run)
            assert set(site.remote.records()) == set(self.case.keys[:10])

    def _converges(self, site: Site, fault: str) -> None:
        site.remote.fault(fault)
        site.model({key: ("x", number) for number, key in enumerate(self.case.keys)})
        site.run()
        site.remote.fault(None)
        run = site.run()
        unrepeatable = set(self.case.modes) == {"insert"} and run.undecided > 0
        assert run.status == ("partial" if unrepeatable else "succeeded"), said_of(run)
        assert {key: site.held(key, self.case.number) for key in self.case.keys[:3]} == {
            key: n for n, key in enumerate(self.case.keys[:3])
        }
        assert set(site.remote.records()) == set(self.case.keys)

    def test_creates_in_doubt_make_one_record_each(self, site: Site) -> None:
        """Where the destination inserts: under its idempotency keys or by look-ups it ends up with each record once."""
        keys = self.case.keys[:40]
        site.remote.fault("reset_after")
        site.model(dict.fromkeys(keys, ("x", 1)), mode="insert")
        site.run()
        site.remote.fault(None)
        site.run()
        assert (run := site.run()).status == "succeeded", said_of(run)
        assert set(site.remote.records()) == set(keys)
        assert site.statuses() == {"acknowledged"}

    def test_a_systemic_refusal_makes_no_dead_letters(self, site: Site) -> None:
        site.remote.fault("reject_all")
        site.model(dict.fromkeys(self.case.keys[:100], ("x", 1)))
        run = site.run()
        assert (run.status, run.rejected, run.dead_letters()) == ("failed", 0, [])
        site.remote.fault(None)
        assert site.run().delivered == 100

    def test_a_field_that_does_not_exist_is_named_before_anything_is_sent(self, site: Site) -> None:
        site.model({self.case.keys[0]: ("x", 1)}, fields={"no_such_field": "t"})
        run = site.run()
        assert run.status == "failed"
        assert "no_such_field" in run.error
        assert site.remote.requests() == 0


def said_of(run: Any) -> str:
    """What a run says of itself, for the message of an assertion: its error, what was refused, and what read back differs."""
    letters = [letter["error"] for letter in run.dead_letters()[:3]]
    differs = run.verified.mismatches[:3] if run.verified is not None else []
    found = {"error": run.error, "hint": run.hint, "dead letters": letters, "read back": differs}
    return f"{run.status}; " + "; ".join(f"{name}: {said}" for name, said in found.items() if said)


class Site:
    """One project over one remote."""

    def __init__(self, folder: Path, case: Case, remote: Remote) -> None:
        self.folder, self.case, self.remote = folder, case, remote
        (folder / "syncs").mkdir()
        document = {
            "project": "conformance",
            "warehouses": {"main": {"type": "duckdb", "path": "warehouse.duckdb"}},
            "destinations": {"there": dict(remote.connection)},
        }
        (folder / "backhaul.yml").write_text(json.dumps(document))  # JSON is YAML

    def model(
        self,
        rows: Mapping[str, tuple[str | None, float]],
        *,
        mode: str | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        """Replaces the model's rows: identifier -> (text, number)."""
        import pyarrow as pa

        from backhaul.testing.duckdb_file import opened

        columns = {
            "k": list(rows),
            "t": [text for text, _ in rows.values()],
            "n": [n for _, n in rows.values()],
        }
        with opened(self.folder / "warehouse.duckdb") as db:
            db.execute("CREATE OR REPLACE TABLE model (k VARCHAR, t VARCHAR, n BIGINT)")
            db.register(
                "given", pa.table(columns, pa.schema({"k": pa.string(), "t": pa.string(), "n": pa.float64()}))
            )
            db.execute("INSERT INTO model SELECT * FROM given")
        case = self.case
        sync = {
            "name": "it", "model": {"table": "model", "primary_key": "k"}, "destination": "there", "object": case.object,
            "mode": mode or case.modes[0], "identify": {case.identify: "k"},
            "fields": {case.text: "t", case.number: "n", **case.also, **(fields or {})}, **case.extra,
        }  # fmt: skip
        (self.folder / "syncs" / "it.yml").write_text(json.dumps(sync))

    def run(self) -> Any:
        """One run, and what it reports."""
        from backhaul.project import load

        return load(self.folder).run("it")

    def statuses(self) -> set[str]:
        """The statuses that records have."""
        from backhaul.project import load

        with load(self.folder) as project:
            return {record["status"] for record in project.records("it")}

    def held(self, key: str, name: str) -> Any:
        """One value at the remote; numbers as numbers."""
        value = self.remote.records()[key].get(name)
        try:
            return float(value) if name == self.case.number and value is not None else value
        except ValueError:
            return value


def _behaviours() -> list[str]:
    return sorted(name.removeprefix("test_") for name in dir(DestinationSuite) if name.startswith("test_"))


def offered(suite: type[DestinationSuite]) -> list[str]:
    """The behaviours that a destination is tested for, declared gaps among them."""
    return [name for name in _behaviours() if suite.offers(name)]


def matrix(suites: Iterable[type[DestinationSuite]]) -> str:
    """Destination x behaviour as a Markdown table; a gap shows its reason below."""
    names = _behaviours()
    chosen = sorted(suites, key=lambda suite: suite.__name__)
    titles = [suite.__name__.removeprefix("Test") for suite in chosen]
    lines = [f"| behaviour | {' | '.join(titles)} |", f"| --- |{' --- |' * len(titles)}"]
    for name in names:
        marks = ["gap" if name in suite.gaps else "yes" if suite.offers(name) else "-" for suite in chosen]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(marks)} |")
    reasons = [
        f"- {title}, {name.replace('_', ' ')}: {reason}"
        for title, suite in zip(titles, chosen, strict=True)
        for name, reason in suite.gaps.items()
    ]
    return "\n".join([*lines, "", *reasons]) + "\n"
