-- `clock` is when the request left, in seconds by the state's clock, which no change of a wall clock moves.
ALTER TABLE intents ADD COLUMN clock DOUBLE PRECISION NOT NULL DEFAULT 0;
