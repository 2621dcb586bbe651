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

DROP TABLE budgets;
DROP TABLE holds;
