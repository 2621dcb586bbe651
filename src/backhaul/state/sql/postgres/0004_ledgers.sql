-- Syncs whose ledger is a file of its own: where the file is gone, it was lost.
CREATE TABLE ledgers (
    sync TEXT PRIMARY KEY
);
