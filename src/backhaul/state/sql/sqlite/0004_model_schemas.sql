-- The model's columns as runs found them: a row whenever they are others than before. `taken` is 0 where the run was refused
-- because of them. `columns` and `changes` are JSON (planning/schema_changes.py).
CREATE TABLE model_schemas (
    sync TEXT NOT NULL,
    version INTEGER NOT NULL,
    at TEXT NOT NULL,
    taken INTEGER NOT NULL,
    columns TEXT NOT NULL,
    changes TEXT NOT NULL,
    PRIMARY KEY (sync, version)
);
