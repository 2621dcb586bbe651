-- Times are UTC, ISO 8601 with Z. A plan's rows are addressed by their number in its file.

-- What a ledger belongs to. A sync has an id that stays when it is renamed; a scope is one sync's work on one object of one
-- account, and whatever a ledger needs (plans, dead letters, descriptions) is filed under its id. `place` is the object at that
-- account, whichever sync writes to it.
CREATE TABLE syncs (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    UNIQUE (project, name)
);
CREATE TABLE scopes (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    sync TEXT NOT NULL,
    account TEXT NOT NULL,
    label TEXT NOT NULL,
    object TEXT NOT NULL,
    place TEXT NOT NULL,
    made_at TEXT NOT NULL
);
CREATE INDEX scopes_of_project ON scopes (project);

-- The accounts that a connection of backhaul.yml led to, by its address and what the destination said itself (`stated`, '' where it
-- states nothing), and when it did last. `account` is what that is taken for: a person may have said so (`backhaul bind`).
CREATE TABLE accounts (
    project TEXT NOT NULL,
    destination TEXT NOT NULL,
    address TEXT NOT NULL,
    stated TEXT NOT NULL,
    account TEXT NOT NULL,
    label TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (project, destination, address, stated)
);

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    sync TEXT NOT NULL,
    scope TEXT,
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
    scope TEXT NOT NULL,
    file TEXT NOT NULL,
    header TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('reviewed', 'held', 'delivering', 'folded')),
    created_at TEXT NOT NULL
);
CREATE INDEX plans_of_scope ON plans (scope, status);

-- Plans that were delivered and folded. Their outcomes and files stay until they are older than `history` says.
CREATE TABLE history (
    plan TEXT PRIMARY KEY,
    scope TEXT NOT NULL,
    header TEXT NOT NULL,
    created_at TEXT NOT NULL,
    settled_at TEXT NOT NULL
) WITHOUT ROWID;

-- A batch that may be on its way: rows [low, high) of a plan. Its row is gone when its outcome is stored. `job` is the destination's
-- own name for work that it goes on with by itself: a later run asks what became of it. `encoding` says how the request's records
-- were written, so that a later run builds the same request.
CREATE TABLE intents (
    plan TEXT NOT NULL,
    low INTEGER NOT NULL,
    high INTEGER NOT NULL,
    op TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    at TEXT NOT NULL,
    job TEXT,
    encoding TEXT NOT NULL,
    PRIMARY KEY (plan, low)
) WITHOUT ROWID;

-- What became of rows [low, high): delivered, but for the listed ones. Lists are JSON, NULL where empty. `left_at` is when the batch
-- left, `answered_at` when its outcome was known. `reasons`: why rows are pending or unknown, as JSON: [[code, class, words, rows], ...].
CREATE TABLE outcomes (
    plan TEXT NOT NULL,
    low INTEGER NOT NULL,
    high INTEGER NOT NULL,
    remote_ids TEXT,
    rejected TEXT,
    unknown TEXT,
    pending TEXT,
    left_at TEXT,
    answered_at TEXT,
    reasons TEXT,
    PRIMARY KEY (plan, low)
) WITHOUT ROWID;

-- `field` is what the refusal names. `seal` says how message and payload are kept: '' the message as it is and the payload by
-- reference (it is read from the plan), 'plain' both as they are, else the id of the key that both are encrypted with, in `payload`.
-- A letter that was discarded or has expired keeps neither: what is left of it says that this value is refused. No id comes twice.
-- `class` is what a refusal is about. A letter that is `waiting` is sent again by the next run without being asked for; `tries` counts
-- the runs that have tried it. `shape` stands for the words of the message without what differs from record to record (advice.py), so
-- that letters can be counted in groups without reading any of them; '' where the message is not kept. `mapping` is the fingerprint of the mapping that it was refused with: under another one it is sent again.
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    op TEXT NOT NULL,
    code TEXT NOT NULL,
    field TEXT,
    message TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    first_failed_at TEXT NOT NULL,
    last_failed_at TEXT NOT NULL,
    payload TEXT NOT NULL,
    seal TEXT NOT NULL,
    hash TEXT NOT NULL,
    by_mapping INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'dead' CHECK (status IN ('dead', 'waiting', 'replay', 'discarded', 'expired')),
    plan TEXT NOT NULL,
    class TEXT NOT NULL,
    tries INTEGER NOT NULL,
    mapping TEXT NOT NULL,
    shape TEXT NOT NULL,
    UNIQUE (scope, key)
);
CREATE INDEX dead_letter_groups ON dead_letters (code, scope, field, shape, status, first_failed_at, last_failed_at);

-- The last description of a scope's destination object, so that a run without changes needs no request.
CREATE TABLE schemas (
    scope TEXT PRIMARY KEY,
    body TEXT NOT NULL
) WITHOUT ROWID;

-- The model's columns as runs found them: a row whenever they are others than before. `taken` is 0 where the run was refused
-- because of them. `columns` and `changes` are JSON (planning/schema_changes.py).
CREATE TABLE model_schemas (
    scope TEXT NOT NULL,
    version INTEGER NOT NULL,
    at TEXT NOT NULL,
    taken INTEGER NOT NULL,
    columns TEXT NOT NULL,
    changes TEXT NOT NULL,
    PRIMARY KEY (scope, version)
);

-- Scopes whose ledger is a file of its own: where the file is gone, it was lost.
CREATE TABLE ledgers (
    scope TEXT PRIMARY KEY
) WITHOUT ROWID;

-- Records whose values were erased and that are never sent again: sha256 of the salt and the key as JSON. The salt is one for
-- all rows of a place; `answer` is what the destination said of the delete. A row of kind `key` counts for its sync, one of kind
-- `identifier` for every sync that writes to the place; `record` is the `hash` of the key that was
-- forgotten; `actor` is the user of the machine who asked for it.
CREATE TABLE forgotten (
    place TEXT NOT NULL,
    sync TEXT NOT NULL,
    hash TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('key', 'identifier')),
    record TEXT NOT NULL,
    salt TEXT NOT NULL,
    at TEXT NOT NULL,
    answer TEXT NOT NULL,
    actor TEXT NOT NULL,
    PRIMARY KEY (place, sync, hash)
);

-- What is spent of a credential's limits: one document a bucket (delivery/windows.py says what stands in it).
CREATE TABLE buckets (
    bucket TEXT PRIMARY KEY,
    body BLOB NOT NULL
) WITHOUT ROWID;

-- A random key of this state, with which names of buckets are made of credentials. It has one row.
CREATE TABLE salts (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    value BLOB NOT NULL
);

-- What this state's clock stood at when a machine started.
CREATE TABLE boots (
    boot TEXT PRIMARY KEY,
    began REAL NOT NULL
) WITHOUT ROWID;
