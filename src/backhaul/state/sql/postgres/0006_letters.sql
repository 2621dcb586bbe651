-- `field` is what the refusal names. `seal` says how message and payload are kept: '' the message as it is and the payload by
-- reference (it is read from the plan), 'plain' both as they are, else the id of the key that both are encrypted with, in `payload`.
-- A letter that was discarded or has expired keeps neither: what is left of it says that this value is refused.
ALTER TABLE dead_letters ADD COLUMN field TEXT;
ALTER TABLE dead_letters ADD COLUMN seal TEXT NOT NULL DEFAULT 'plain';
ALTER TABLE dead_letters ALTER COLUMN seal DROP DEFAULT;
ALTER TABLE dead_letters DROP CONSTRAINT dead_letters_status_check;
ALTER TABLE dead_letters ADD CONSTRAINT dead_letters_status_check CHECK (status IN ('dead', 'replay', 'discarded', 'expired'));
UPDATE dead_letters SET message = '', payload = '', seal = '' WHERE status = 'discarded';
