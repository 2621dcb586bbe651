-- `job` is the destination's own name for work that it goes on with by itself: a later run asks what became of it.
ALTER TABLE intents ADD COLUMN job TEXT;
