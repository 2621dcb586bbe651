-- `shape` stands for the words of the message without what differs from record to record (advice.py), so that letters can be
-- counted in groups without reading any of them; '' where the message is not kept.
ALTER TABLE dead_letters ADD COLUMN shape TEXT NOT NULL DEFAULT '';
CREATE INDEX dead_letter_groups ON dead_letters (code, sync, field, shape, status, first_failed_at, last_failed_at);
