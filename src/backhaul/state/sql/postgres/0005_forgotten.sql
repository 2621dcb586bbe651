-- Records whose values were erased and that are never sent again: sha256 of the salt and the key as JSON. The salt is one for
-- all rows of a sync; `answer` is what the destination said of the delete.
CREATE TABLE forgotten (
    sync TEXT NOT NULL,
    hash TEXT NOT NULL,
    salt TEXT NOT NULL,
    at TEXT NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (sync, hash)
);
