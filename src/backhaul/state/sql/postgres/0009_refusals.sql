-- `class` is what a refusal is about. A letter that is `waiting` is sent again by the next run without being asked for; `tries` counts the
-- runs that have tried it. `reasons` of an outcome: why rows are pending or unknown, as JSON: [[code, class, words, rows], ...].
ALTER TABLE dead_letters ADD COLUMN class TEXT NOT NULL DEFAULT 'record';
ALTER TABLE dead_letters ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_status_check;
ALTER TABLE dead_letters ADD CONSTRAINT dead_letters_status_check CHECK (status IN ('dead', 'waiting', 'replay', 'discarded', 'expired'));
ALTER TABLE outcomes ADD COLUMN reasons TEXT;
