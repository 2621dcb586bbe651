-- Plans that were delivered and folded. Their outcomes and files stay until they are older than `history` says.
CREATE TABLE history (
    plan TEXT PRIMARY KEY,
    sync TEXT NOT NULL,
    header TEXT NOT NULL,
    created_at TEXT NOT NULL,
    settled_at TEXT NOT NULL
);

-- When the batch left, and when it was known what became of it.
ALTER TABLE outcomes ADD COLUMN left_at TEXT;
ALTER TABLE outcomes ADD COLUMN answered_at TEXT;
