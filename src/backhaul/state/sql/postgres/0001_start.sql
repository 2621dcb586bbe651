-- Times are UTC, ISO 8601 with Z, but for those of leases and parts, which are the database's own.
-- A plan's rows are addressed by their number in its file.
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    sync TEXT NOT NULL,
    plan TEXT,
    status TEXT NOT NULL,
    error TEXT,
    started_at TEXT NOT NULL,
    finished_at TEXT,
    rows BIGINT NOT NULL DEFAULT 0,
    incremental INTEGER NOT NULL DEFAULT 0,
    report TEXT,
    rowid BIGINT GENERATED ALWAYS AS IDENTITY
);
CREATE INDEX runs_of_sync ON runs (sync, started_at);

CREATE TABLE plans (
    id TEXT PRIMARY KEY,
    sync TEXT NOT NULL,
    file TEXT NOT NULL,
    header TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('reviewed', 'held', 'delivering', 'folded')),
    created_at TEXT NOT NULL,
    rowid BIGINT GENERATED ALWAYS AS IDENTITY
);
CREATE INDEX plans_of_sync ON plans (sync, status);

-- Files that a worker on another disk needs, in pieces: plans that are being delivered, and what ledgers are made of.
CREATE TABLE parts (
    file TEXT NOT NULL,
    part INTEGER NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (file, part)
);

-- The ledger of a sync: a base and what each fold since then has changed, as files in parts. `lineage` is another one
-- where a ledger was begun anew; `rows` are the file's; `body` is what the ledger says of itself, as JSON.
CREATE TABLE folds (
    sync TEXT NOT NULL,
    fold BIGINT NOT NULL,
    base BOOLEAN NOT NULL,
    lineage TEXT NOT NULL,
    rows BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (sync, fold)
);

-- A batch that may be on its way: rows [low, high) of a plan. Its row is gone when its outcome is stored.
CREATE TABLE intents (
    plan TEXT NOT NULL,
    low BIGINT NOT NULL,
    high BIGINT NOT NULL,
    op TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (plan, low)
);

-- What became of rows [low, high): delivered, but for the listed ones. Lists are JSON, NULL where empty.
CREATE TABLE outcomes (
    plan TEXT NOT NULL,
    low BIGINT NOT NULL,
    high BIGINT NOT NULL,
    remote_ids TEXT,
    rejected TEXT,
    unknown TEXT,
    pending TEXT,
    PRIMARY KEY (plan, low)
);

CREATE TABLE dead_letters (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync TEXT NOT NULL,
    key TEXT NOT NULL,
    op TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    first_failed_at TEXT NOT NULL,
    last_failed_at TEXT NOT NULL,
    payload TEXT NOT NULL,
    hash TEXT NOT NULL,
    by_mapping INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'dead' CHECK (status IN ('dead', 'replay', 'discarded')),
    plan TEXT NOT NULL,
    UNIQUE (sync, key)
);

-- What is spent of a credential's limits: one document a bucket (delivery/windows.py says what stands in it).
CREATE TABLE buckets (
    bucket TEXT PRIMARY KEY,
    body BYTEA NOT NULL
);

-- A random key of this state, with which names of buckets are made of credentials. It has one row.
CREATE TABLE salts (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    value BYTEA NOT NULL
);

-- What the clock of an embedded state stood at when a machine started; a database has its own.
CREATE TABLE boots (
    boot TEXT PRIMARY KEY,
    began DOUBLE PRECISION NOT NULL
);

-- The last description of a sync's destination object, so that a run without changes needs no request.
CREATE TABLE schemas (
    sync TEXT PRIMARY KEY,
    body TEXT NOT NULL
);

-- Who runs a sync: nobody where owner is NULL. The fence grows with every owner; `seconds` is the lease's length and
-- `timeout` what a request of the owner may take.
CREATE TABLE leases (
    sync TEXT PRIMARY KEY,
    owner TEXT,
    process TEXT,
    fence BIGINT NOT NULL,
    expires TIMESTAMPTZ NOT NULL,
    seconds DOUBLE PRECISION NOT NULL,
    timeout DOUBLE PRECISION NOT NULL
);
