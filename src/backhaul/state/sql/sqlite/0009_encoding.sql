-- `encoding` says how the request's records were written, so that a later run builds the same request.
ALTER TABLE intents ADD COLUMN encoding TEXT NOT NULL DEFAULT '{"wire":"json","records":"whole","csv_null":"","frame":null}';
