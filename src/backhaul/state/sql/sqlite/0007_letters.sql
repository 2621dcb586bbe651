-- `field` is what the refusal names. `seal` says how message and payload are kept: '' the message as it is and the payload by
-- reference (it is read from the plan), 'plain' both as they are, else the id of the key that both are encrypted with, in `payload`.
-- A letter that was discarded or has expired keeps neither: what is left of it says that this value is refused. No id comes twice.
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
    status TEXT NOT NULL DEFAULT 'dead' CHECK (status IN ('dead', 'replay', 'discarded', 'expired')),
    plan TEXT NOT NULL,
    UNIQUE (sync, key)
);
INSERT INTO letters (id, sync, key, op, code, message, attempts, first_failed_at, last_failed_at, payload, seal, hash, by_mapping, status, plan)
SELECT id, sync, key, op, code, message, attempts, first_failed_at, last_failed_at, payload, 'plain', hash, by_mapping, status, plan
FROM dead_letters;
DROP TABLE dead_letters;
ALTER TABLE letters RENAME TO dead_letters;
UPDATE dead_letters SET message = '', payload = '', seal = '' WHERE status = 'discarded';
