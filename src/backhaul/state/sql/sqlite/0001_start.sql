-- Times are UTC, ISO 8601 with Z. A plan's rows are addressed by their number in its file.
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    sync TEXT NOT NULL,
    plan TEXT,
    status TEXT NOT NULL,
    error TEXT,
    started_at TEXT NOT NULL,
    finished_at TEXT,
    rows INTEGER NOT NULL DEFAULT 0,
    incremental INTEGER NOT NULL DEFAULT 0,
    report TEXT
);
CREATE INDEX runs_of_sync ON runs (sync, started_at);

CREATE TABLE plans (
    id TEXT PRIMARY KEY,
    sync TEXT NOT NULL,
    file TEXT NOT NULL,
    header TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('reviewed', 'held', 'delivering', 'folded')),
    created_at TEXT NOT NULL
);
CREATE INDEX plans_of_sync ON plans (sync, status);

-- A batch that may be on its way: rows [low, high) of a plan. Its row is gone when its outcome is stored.
CREATE TABLE intents (
    plan TEXT NOT NULL,
    low INTEGER NOT NULL,
    high INTEGER NOT NULL,
    op TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (plan, low)
) WITHOUT ROWID;

-- What became of rows [low, high): delivered, but for the listed ones. Lists are JSON, NULL where empty.
CREATE TABLE outcomes (
    plan TEXT NOT NULL,
    low INTEGER NOT NULL,
    high INTEGER NOT NULL,
    remote_ids TEXT,
    rejected TEXT,
    unknown TEXT,
    pending TEXT,
    PRIMARY KEY (plan, low)
) WITHOUT ROWID;

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY,
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

-- Requests per time slot (seconds since 1970, divided by the slot's length) of every bucket.
CREATE TABLE budgets (
    bucket TEXT NOT NULL,
    slot INTEGER NOT NULL,
    used INTEGER NOT NULL,
    PRIMARY KEY (bucket, slot)
) WITHOUT ROWID;

CREATE TABLE holds (
    destination TEXT PRIMARY KEY,
    until REAL NOT NULL
) WITHOUT ROWID;

-- The last description of a sync's destination object, so that a run without changes needs no request.
CREATE TABLE schemas (
    sync TEXT PRIMARY KEY,
    body TEXT NOT NULL
) WITHOUT ROWID;
