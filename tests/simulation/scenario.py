"""One scenario, drawn from a seed: what the source holds and how it changes, how the sync is set up, what goes wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

Row = dict[str, Any]
WORDS = ("red", "green", "blue", "", None, 'Öl, "quoted"\n')
REFUSED, POISON = "refused", "poison"
"""Values of `b`: the destination refuses the record by name; it refuses the whole request and names nobody."""
DEEDS = (
    "exchange",
    "rename field",
    "reorder",
    "reword",
    "account",
    "rename sync",
    "reset",
    "forget",
    "baseline",
)
"""What people do between runs: two fields exchange their columns; a field is called otherwise; the fields stand in another
order; an expression is written otherwise; the destination is another account; the sync is called otherwise; and commands."""
LATER_DEEDS = ("undo", "restore", "mode")
"""More of them, drawn apart, so that a seed of before goes on as it did up to where one is put between."""
_REMAPPED = {"exchange", "rename field", "reorder", "reword"}
_DEED_SHARE = 0.3
"""Of seeds in which a person does anything."""
_LATER_SHARE = 0.25
MAX_LATE = 20.0
"""Seconds after a client gave up until when the destination may still apply its request."""
INDEX_LAG = 45.0
"""Longer than a create may take to be applied (the client's timeout and `MAX_LATE`) and to be shown."""


@dataclass(frozen=True)
class Faults:
    """Shares of requests between 0 and 1."""

    connect: float = 0.0
    reset_before: float = 0.0
    reset_after: float = 0.0
    silence: float = 0.0
    """No answer within the client's timeout; applied before, late, or never."""
    throttle: float = 0.0
    busy: float = 0.0
    """503 with Retry-After."""
    broken: float = 0.0
    """5xx, applied or not."""
    garbage: float = 0.0
    """200 with a page, nothing, half an answer, or another shape; applied or not."""
    retryable: float = 0.0
    """Of records: not taken now."""
    omitted: float = 0.0
    """Of records: taken, and not in the answer."""
    doubled: float = 0.0
    """Of records: named twice."""
    torn: float = 0.0
    """Of records: named as taken and as refused."""
    strangers: float = 0.0
    """Of answers: they name records that nobody sent."""
    lie: float = 0.0
    """Of records: said to be taken, and not taken as they were."""
    unauthorised: float = 0.0
    slow: float = 0.0
    disk: float = 0.0
    """Of seconds: the state cannot be written."""


@dataclass(frozen=True)
class Setup:
    """How the sync is set up."""

    mode: str
    batch: int
    concurrency: int
    rates: tuple[str, ...]
    idempotent: bool
    index: bool
    """Results come in the order of the records and name no key."""
    composite: bool
    by_email: bool
    """Records are identified by another column than the key, whose values may change hands."""
    cursor: bool
    sample: int
    timeout: float = 5.0
    shared: bool = False
    """The state keeps files and ledger for workers on many disks; a worker may find its own disk empty."""
    priority: int = 0
    account: str = "first"
    """Whose account the destination says it is."""
    fields: tuple[tuple[str, str], ...] = (("a", "a"), ("b", "b"))
    """Names of the mapped fields and the columns that they are made of, in the order of the file."""
    stale: float = 0.0
    """A read shows each record as it was up to so many seconds ago."""
    index_lag: float | None = None
    """Declared: creates of unknown end are looked up, this many seconds after they were sent."""
    key_life: float = 86_400.0
    """Seconds for which the destination knows an idempotency key."""
    reworded: bool = False
    """The expression of a field is written otherwise and gives the same values."""


@dataclass
class Scenario:
    """What a seed means. `acts` are (name, arguments) in order; a drain follows them."""

    seed: int
    setup: Setup
    faults: Faults
    rows: int
    runs: int
    crash: float
    """How likely a run is killed."""
    races: str = ""
    """What another worker does at the same time, in some runs: `same` (tries to run the sync too), `beside` (runs another
    sync on the same credential)."""
    partner: bool = False
    """Another mirror writes to the same object, and rows move from the model of the first to its model."""
    deeds: tuple[str, ...] = ()
    """What a person does after the runs, in this order; each is followed by another run."""
    rng: random.Random = field(repr=False, default_factory=random.Random)

    def calm(self) -> Faults:
        return Faults()


def scenario_of(seed: int) -> Scenario:
    """The scenario of a seed; the same each time."""
    rng = random.Random(f"scenario {seed}")
    mode = rng.choice(("upsert", "mirror", "mirror", "insert", "update"))
    setup = Setup(
        mode=mode,
        batch=rng.choice((1, 2, 3, 5, 8, 20)),
        concurrency=rng.choice((1, 2, 4, 8)),
        rates=rng.choice(((), (), ("5/1s",), ("20/10s",), ("3/1s", "30/1m"), ("40/1h",))),
        idempotent=rng.random() < 0.4,
        index=rng.random() < 0.15,
        composite=rng.random() < 0.25,
        by_email=mode in ("upsert", "mirror") and rng.random() < 0.25,
        cursor=mode != "mirror" and rng.random() < 0.3,
        sample=rng.choice((0, 3, 200)),
    )
    shared = random.Random(f"shared {seed}").random() < 0.25
    setup = replace(setup, composite=setup.composite and not setup.by_email, shared=shared)
    setup = _lateness(seed, setup)
    deeds = _with_later_deeds(seed, setup, _deeds(seed, setup))
    if _REMAPPED.intersection(deeds):
        setup = replace(setup, fields=(*setup.fields, ("c", "email")))
    partner = _has_partner(seed, setup, deeds)
    return Scenario(
        seed, setup, _faults(rng, setup), rows=rng.choice((5, 8, 12, 20, 40, 60)), runs=rng.choice((1, 2, 2, 3)),
        crash=rng.choice((0.0, 0.3, 0.7)), races="" if partner else _races(seed, setup), partner=partner, deeds=deeds, rng=rng,
    )  # fmt: skip


def _lateness(seed: int, setup: Setup) -> Setup:
    """What a destination shows late, and forgets early."""
    rng = random.Random(f"late {seed}")
    if setup.mode == "insert" and rng.random() < 0.3:
        setup = replace(setup, index_lag=INDEX_LAG, stale=rng.choice((0.0, 10.0)))
    elif rng.random() < 0.12:
        setup = replace(setup, stale=rng.choice((1.0, 5.0)))
    return replace(setup, key_life=600.0) if setup.idempotent and rng.random() < 0.3 else setup


def _deeds(seed: int, setup: Setup) -> tuple[str, ...]:
    rng = random.Random(f"deeds {seed}")
    if rng.random() >= _DEED_SHARE:
        return ()
    able = [name for name in DEEDS if name != "forget" or not (setup.by_email or setup.composite)]
    return tuple(rng.choice(able) for _ in range(rng.choice((1, 2, 3))))


def _with_later_deeds(seed: int, setup: Setup, deeds: tuple[str, ...]) -> tuple[str, ...]:
    rng = random.Random(f"later deeds {seed}")
    if rng.random() >= _LATER_SHARE:
        return deeds
    found = list(deeds)
    for _ in range(rng.choice((1, 2))):
        deed = rng.choice(LATER_DEEDS)
        if _may(deed, setup):
            found.insert(rng.randint(0, len(found)), deed)
    return tuple(found)


def _may(deed: str, setup: Setup) -> bool:
    if setup.by_email:
        return False  # what a key's identifier was, the oracle does not know
    if deed == "mode":
        return setup.mode != "update"  # a letter about a record that is missing stays one
    # an undone create, and one that the state knows nothing of since, is created again: the oracle takes it for a second record
    return setup.mode != "insert" and not (deed == "restore" and setup.shared)


def _has_partner(seed: int, setup: Setup, deeds: tuple[str, ...]) -> bool:
    # where a person forgets or undoes a record, or the account is another one, whose record it is then is a question of its own
    alone = (
        {"account", "forget", "undo", "mode"}.intersection(deeds) or setup.by_email or setup.mode != "mirror"
    )
    return not alone and random.Random(f"partner {seed}").random() < 0.15


def _races(seed: int, setup: Setup) -> str:
    rng = random.Random(f"race {seed}")
    if rng.random() >= (0.4 if setup.shared else 0.1):
        return ""
    return rng.choice(("same", "same", "beside") if setup.shared else ("same", "beside", "beside"))


def _faults(rng: random.Random, setup: Setup) -> Faults:
    names = [name for name in Faults.__dataclass_fields__ if name not in ("lie", "unauthorised", "disk")]
    chosen = rng.sample(names, rng.choice((0, 1, 2, 4, 8)))
    drawn = {name: rng.choice((0.02, 0.1, 0.3, 0.6)) for name in chosen}
    if setup.sample >= 200 and rng.random() < 0.2:
        drawn["lie"] = rng.choice((0.1, 0.5))
    if rng.random() < 0.06:
        drawn["unauthorised"] = rng.choice((0.05, 0.3))
    if rng.random() < 0.08:
        drawn["disk"] = rng.choice((0.05, 0.4))
    return Faults(**drawn)


class Source:
    """The model: rows by primary key. Every change takes a new `version`; `moment()` is what a read sees."""

    def __init__(self, rng: random.Random, setup: Setup, rows: int) -> None:
        self.rng, self.setup = rng, setup
        self.version = 0
        self.rows: dict[int, Row] = {}
        self.past: dict[int, Row] = {}
        """What rows were before their last change."""
        self.keys = list(range(1, rows + 1))
        self.bad = rows // 15
        for key in self.keys:
            if rng.random() < 0.8:
                self.put(key)

    def put(self, key: int, **given: Any) -> None:
        """Gives a key new values."""
        self.version += 1
        taken = {row["email"] for other, row in self.rows.items() if other != key}
        email = f"m{key}" if f"m{key}" not in taken else f"m{key}v{self.version}"
        row = {"id": key, "email": email, "a": self.rng.randrange(3), "b": self.rng.choice(WORDS)}
        if key <= self.bad and self.rng.random() < 0.6:
            row["b"] = self.rng.choice((REFUSED, POISON))
        if key in self.rows:
            row["email"] = self.rows[key]["email"]
            self.past[key] = self.rows[key]
        self.rows[key] = row | given | {"at": self.version}

    def change(self, share: float) -> None:
        """Rows appear, change, change back, vanish, and hand over their identifiers."""
        for key in self.keys:
            if self.rng.random() >= share:
                continue
            what = self.rng.random()
            if what < 0.3 and key in self.past:
                self._put_back(key)
            elif key not in self.rows or what < 0.65:
                self.put(key)
            elif what < 0.8 and not self.setup.cursor:
                self.past[key] = self.rows.pop(key)
            elif what < 0.9 and self.setup.by_email:
                self._swap(key)
            else:
                self.put(key, b="red")

    def _put_back(self, key: int) -> None:
        """A row is again what it was before its last change."""
        past = self.past[key]
        self.put(key, a=past["a"], b=past["b"])

    def _swap(self, key: int) -> None:
        other = self.rng.choice(sorted(self.rows))
        mine, theirs = self.rows[key]["email"], self.rows[other]["email"]
        self.put(key, email=theirs)
        self.put(other, email=mine if key != other else f"n{self.version}")

    def give(self, other: Source, rng: random.Random) -> None:
        """Some rows move to another model, for good."""
        for key in [key for key in self.keys if rng.random() < 0.15]:
            self.keys.remove(key)
            other.keys.append(key)
            other.version += 1
            if key in self.rows:
                other.rows[key] = self.rows.pop(key) | {"at": other.version}

    def moment(self) -> dict[str, Row]:
        """What the destination should hold now, by identifier."""
        return dict(self._records())

    def _records(self) -> Iterator[tuple[str, Row]]:
        for row in self.rows.values():
            name = self.identifier(row)
            yield name, {"id": name, **{field: row[column] for field, column in self.setup.fields}}

    def names(self) -> dict[str, str]:
        """Identifiers by primary key, as JSON."""
        return {self._key(row): self.identifier(row) for row in self.rows.values()}

    def _key(self, row: Row) -> str:
        return f"[{row['id'] % 7},{row['id']}]" if self.setup.composite else str(row["id"])

    def identifier(self, row: Row) -> str:
        if self.setup.by_email:
            return str(row["email"])
        return f"{row['id'] % 7}/{row['id']}" if self.setup.composite else str(row["id"])
