-- `mapping` is the fingerprint of the mapping that the record was refused with: under another one it is sent again.
ALTER TABLE dead_letters ADD COLUMN mapping TEXT NOT NULL DEFAULT '';
