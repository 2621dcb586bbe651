-- `class` is what a refusal is about. A letter that is `waiting` is sent again by the next run without being asked for; `tries` counts the
-- runs that have tried it. `reasons` of an outcome: why rows are pending or unknown, as JSON: [[code, class, words, rows], ...].
CREATE TABLE letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sync TEXT NOT NULL,
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
    class TEXT NOT NULL DEFAULT 'record',
    tries INTEGER NOT NULL DEFAULT 0,
    UNIQUE (sync, key)
);
INSERT INTO letters (id, sync, key, op, code, field, message, attempts, first_failed_at, last_failed_at, payload, seal, hash, by_mapping, status, plan)
SELECT id, sync, key, op, code, field, message, attempts, first_failed_at, last_failed_at, payload, seal, hash, by_mapping, status, plan FROM dead_letters;
DROP TABLE dead_letters;
ALTER TABLE letters RENAME TO dead_letters;
ALTER TABLE outcomes ADD COLUMN reasons TEXT;
