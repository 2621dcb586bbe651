-- start_run
INSERT INTO runs (id, sync, status, started_at) VALUES (:id, :sync, 'running', :started_at);

-- finish_run
UPDATE runs SET status = :status, error = :error, finished_at = :finished_at, plan = :plan, rows = :rows,
    incremental = :incremental, report = :report WHERE id = :id;

-- interrupted_runs
UPDATE runs SET status = 'failed', error = 'ended without a word (killed or crashed); the next run settled what it left', finished_at = :at
WHERE sync = :sync AND status = 'running' AND id <> :id;

-- runs
SELECT id, sync, plan, status, error, started_at, finished_at, rows, report FROM runs
WHERE (:sync IS NULL OR sync = :sync) ORDER BY started_at DESC, rowid DESC LIMIT :limit;

-- last_full_rows
SELECT rows FROM runs WHERE sync = :sync AND status IN ('succeeded', 'partial', 'deferred') AND incremental = 0
ORDER BY started_at DESC, rowid DESC LIMIT 1;

-- add_plan
INSERT INTO plans (id, sync, file, header, status, created_at) VALUES (:id, :sync, :file, :header, :status, :created_at);

-- plan
SELECT id, sync, file, header, status, created_at FROM plans WHERE id = :id;

-- plans_with_status
SELECT id, sync, file, header, status, created_at FROM plans WHERE sync = :sync AND status = :status ORDER BY created_at, rowid;

-- set_plan_status
UPDATE plans SET status = :status WHERE id = :id;

-- drop_plan_intents
DELETE FROM intents WHERE plan = :id;

-- drop_plan_outcomes
DELETE FROM outcomes WHERE plan = :id;

-- drop_plan
DELETE FROM plans WHERE id = :id;

-- old_plans
SELECT id, file FROM plans WHERE status IN ('reviewed', 'held') AND created_at < :before;

-- intend
INSERT OR REPLACE INTO intents (plan, low, high, op, idempotency_key, at)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?);

-- settle
INSERT OR REPLACE INTO outcomes (plan, low, high, remote_ids, rejected, unknown, pending)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 FROM json_each(?);

-- end_intent
DELETE FROM intents WHERE (plan, low) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?));

-- intents
SELECT low, high FROM intents WHERE plan = :plan ORDER BY low;

-- outcomes
SELECT low, high, remote_ids, rejected, unknown, pending FROM outcomes WHERE plan = :plan ORDER BY low;

-- bury
INSERT INTO dead_letters (sync, key, op, code, message, attempts, first_failed_at, last_failed_at, payload, hash, by_mapping, plan)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8, value ->> 9,
    value ->> 10, value ->> 11 FROM json_each(?) WHERE true
ON CONFLICT (sync, key) DO UPDATE SET op = excluded.op, code = excluded.code, message = excluded.message,
    attempts = attempts + excluded.attempts, last_failed_at = excluded.last_failed_at, payload = excluded.payload,
    hash = excluded.hash, by_mapping = excluded.by_mapping, plan = excluded.plan, status = 'dead';

-- raise
DELETE FROM dead_letters WHERE (sync, key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?));

-- void_refusals
DELETE FROM dead_letters WHERE plan = :plan AND code = :code AND NOT by_mapping;

-- refused
SELECT key, hash, by_mapping FROM dead_letters WHERE sync = :sync AND status <> 'replay';

-- letters
SELECT key, hash FROM dead_letters WHERE sync = :sync;

-- dead_keys
SELECT key FROM dead_letters WHERE sync = :sync;

-- dead_letters
SELECT id, sync, key, op, code, message, attempts, first_failed_at, last_failed_at, payload, status FROM dead_letters
WHERE (:sync IS NULL OR sync = :sync) AND (:id IS NULL OR id = :id) AND status <> 'discarded' ORDER BY sync, id;

-- mark_dead_letter
UPDATE dead_letters SET status = :status WHERE id = :id;

-- spend
INSERT INTO budgets (bucket, slot, used) SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?) WHERE true
ON CONFLICT (bucket, slot) DO UPDATE SET used = used + excluded.used;

-- spent
SELECT slot, used FROM budgets WHERE bucket = :bucket AND slot >= :since ORDER BY slot;

-- forget_spent
DELETE FROM budgets WHERE bucket = ? AND slot < ?;

-- hold
INSERT INTO holds (destination, until) SELECT value ->> 0, value ->> 1 FROM json_each(?) WHERE true
ON CONFLICT (destination) DO UPDATE SET until = max(until, excluded.until);

-- held_until
SELECT until FROM holds WHERE destination = :destination;

-- schema
SELECT body FROM schemas WHERE sync = :sync;

-- keep_schema
INSERT INTO schemas (sync, body) VALUES (:sync, :body) ON CONFLICT (sync) DO UPDATE SET body = excluded.body;

-- doubtful
SELECT p.id, count(i.low) AS intents FROM plans p LEFT JOIN intents i ON i.plan = p.id
WHERE p.sync = :sync AND p.status = 'delivering' GROUP BY p.id;
