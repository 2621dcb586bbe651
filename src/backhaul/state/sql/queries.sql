-- sync
SELECT id FROM syncs WHERE project = :project AND name = :name;

-- syncs
SELECT id, name FROM syncs WHERE project = :project ORDER BY name;

-- keep_sync
INSERT INTO syncs (id, project, name) VALUES (:id, :project, :name) ON CONFLICT (project, name) DO NOTHING;

-- drop_sync
DELETE FROM syncs WHERE project = :project AND name = :name;

-- rename_sync
UPDATE syncs SET name = :name WHERE project = :project AND name = :was;

-- scopes
SELECT id, sync, account, label, object, place, made_at FROM scopes WHERE project = :project ORDER BY made_at, id;

-- keep_scope
INSERT INTO scopes (id, project, sync, account, label, object, place, made_at)
VALUES (:id, :project, :sync, :account, :label, :object, :place, :made_at) ON CONFLICT (id) DO UPDATE SET label = excluded.label;

-- accounts
SELECT address, stated, account, label, at FROM accounts WHERE project = :project AND destination = :destination ORDER BY at, address;

-- keep_account
INSERT INTO accounts (project, destination, address, stated, account, label, at)
VALUES (:project, :destination, :address, :stated, :account, :label, :at)
ON CONFLICT (project, destination, address, stated) DO UPDATE SET account = excluded.account, label = excluded.label, at = excluded.at;

-- start_run
INSERT INTO runs (id, sync, status, started_at) VALUES (:id, :sync, 'running', :started_at);

-- finish_run
UPDATE runs SET scope = :scope, status = :status, error = :error, finished_at = :finished_at, plan = :plan, rows = :rows,
    incremental = :incremental, report = :report WHERE id = :id;

-- interrupted_runs
UPDATE runs SET status = 'interrupted', error = 'interrupted (the process was killed or crashed); the next run settled what it left', finished_at = :at
WHERE sync = :sync AND status = 'running' AND id <> :id;

-- runs
SELECT id, sync, scope, plan, status, error, started_at, finished_at, rows, report FROM runs WHERE sync = :sync ORDER BY rowid DESC LIMIT :limit;

-- runs_of_project
SELECT id, sync, scope, plan, status, error, started_at, finished_at, rows, report FROM runs
WHERE sync IN (SELECT id FROM syncs WHERE project = :project) ORDER BY rowid DESC LIMIT :limit;

-- last_full_rows
SELECT rows FROM runs WHERE sync = :sync AND scope = :scope AND status IN ('succeeded', 'partial', 'deferred') AND incremental = 0
ORDER BY rowid DESC LIMIT 1;

-- run
SELECT id, sync, scope, plan, status FROM runs WHERE id = :id;

-- run_of_plan
SELECT id, sync, scope, status, started_at FROM runs WHERE plan = :plan ORDER BY started_at DESC, rowid DESC LIMIT 1;

-- add_plan
INSERT INTO plans (id, scope, file, header, status, created_at) VALUES (:id, :scope, :file, :header, :status, :created_at);

-- plan
SELECT id, scope, file, header, status, created_at FROM plans WHERE id = :id;

-- plans_with_status
SELECT id, scope, file, header, status, created_at FROM plans WHERE scope = :scope AND status = :status ORDER BY rowid;

-- set_plan_status
UPDATE plans SET status = :status WHERE id = :id;

-- drop_plan_intents
DELETE FROM intents WHERE plan = :id;

-- drop_plan_outcomes
DELETE FROM outcomes WHERE plan = :id;

-- drop_plan
DELETE FROM plans WHERE id = :id;

-- keep_history
INSERT INTO history (plan, scope, header, created_at, settled_at) SELECT id, scope, header, created_at, :at FROM plans WHERE id = :id
ON CONFLICT (plan) DO NOTHING;

-- drop_history
DELETE FROM history WHERE plan = :id;

-- history
SELECT plan, settled_at FROM history WHERE scope IN (SELECT id FROM scopes WHERE project = :project) ORDER BY settled_at, plan;

-- plans_of
SELECT id, header, status, created_at FROM plans WHERE scope = :scope
UNION ALL SELECT plan, header, 'delivered', created_at FROM history WHERE scope = :scope ORDER BY 4, 1;

-- answers
SELECT low, high, remote_ids, rejected, unknown, pending, left_at, answered_at, reasons FROM outcomes
WHERE plan = :plan AND low <= :row AND high > :row ORDER BY high - low LIMIT 1;

-- intent_of
SELECT at FROM intents WHERE plan = :plan AND low <= :row AND high > :row;

-- letter_of
SELECT id, scope, key, op, code, field, message, attempts, first_failed_at, last_failed_at, payload, seal, status, plan, class, tries, mapping FROM dead_letters
WHERE scope = :scope AND key = :key;

-- old_plans
SELECT id, file FROM plans WHERE status IN ('reviewed', 'held') AND created_at < :before
AND scope IN (SELECT id FROM scopes WHERE project = :project);

-- intend
INSERT INTO intents (plan, low, high, op, idempotency_key, at, job, encoding, clock)
SELECT value ->> 0, CAST(value ->> 1 AS BIGINT), CAST(value ->> 2 AS BIGINT), value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
    CAST(value ->> 8 AS DOUBLE PRECISION) FROM {rows} WHERE true
ON CONFLICT (plan, low) DO UPDATE SET high = excluded.high, op = excluded.op, idempotency_key = excluded.idempotency_key, at = excluded.at,
    job = excluded.job, encoding = excluded.encoding, clock = excluded.clock;

-- settle
INSERT INTO outcomes (plan, low, high, remote_ids, rejected, unknown, pending, left_at, answered_at, reasons)
SELECT value ->> 0, CAST(value ->> 1 AS BIGINT), CAST(value ->> 2 AS BIGINT), value ->> 3, value ->> 4, value ->> 5, value ->> 6,
    value ->> 7, value ->> 8, value ->> 9 FROM {rows} WHERE true
ON CONFLICT (plan, low) DO UPDATE SET high = excluded.high, remote_ids = excluded.remote_ids, rejected = excluded.rejected,
    unknown = excluded.unknown, pending = excluded.pending, left_at = excluded.left_at, answered_at = excluded.answered_at,
    reasons = excluded.reasons;

-- end_intent
DELETE FROM intents WHERE (plan, low) IN (SELECT value ->> 0, CAST(value ->> 1 AS BIGINT) FROM {rows});

-- intents
SELECT low, high, op, idempotency_key, at, job, encoding, clock FROM intents WHERE plan = :plan ORDER BY low;

-- outcomes
SELECT low, high, remote_ids, rejected, unknown, pending FROM outcomes WHERE plan = :plan ORDER BY low;

-- bury
INSERT INTO dead_letters (scope, key, op, code, message, attempts, first_failed_at, last_failed_at, payload, hash, by_mapping, plan, field, seal,
    class, tries, status, mapping, shape)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, CAST(value ->> 5 AS INTEGER), value ->> 6, value ->> 7, value ->> 8,
    value ->> 9, CAST(value ->> 10 AS INTEGER), value ->> 11, value ->> 12, value ->> 13, value ->> 14, CAST(value ->> 15 AS INTEGER),
    value ->> 16, value ->> 17, value ->> 18 FROM {rows} WHERE true
ON CONFLICT (scope, key) DO UPDATE SET op = excluded.op, code = excluded.code, message = excluded.message,
    attempts = dead_letters.attempts + excluded.attempts, last_failed_at = excluded.last_failed_at, payload = excluded.payload,
    hash = excluded.hash, by_mapping = excluded.by_mapping, plan = excluded.plan, field = excluded.field, seal = excluded.seal, class = excluded.class,
    tries = excluded.tries, status = excluded.status, mapping = excluded.mapping, shape = excluded.shape;

-- raise
DELETE FROM dead_letters WHERE (scope, key) IN (SELECT value ->> 0, value ->> 1 FROM {rows});

-- void_refusals
DELETE FROM dead_letters WHERE plan = :plan AND code = :code AND by_mapping = 0 AND first_failed_at = last_failed_at;

-- return_letters
UPDATE dead_letters SET status = 'dead' WHERE scope = :scope AND status = 'replay' RETURNING id;

-- refused
SELECT key, hash, by_mapping, mapping FROM dead_letters WHERE scope = :scope AND status NOT IN ('replay', 'waiting');

-- letters
SELECT key, hash, code, tries FROM dead_letters WHERE scope = :scope;

-- dead_keys
SELECT key FROM dead_letters WHERE scope = :scope AND status <> 'waiting';

-- dead_letters
SELECT id, scope, key, op, code, field, message, attempts, first_failed_at, last_failed_at, payload, seal, status, plan, by_mapping, class, tries FROM dead_letters
WHERE (CAST(:scope AS TEXT) IS NULL OR scope = :scope) AND (CAST(:id AS BIGINT) IS NULL OR id = :id) AND status IN ('dead', 'replay', 'waiting')
ORDER BY scope, id;

-- closed_letters
SELECT id, scope, key, op, code, field, message, attempts, first_failed_at, last_failed_at, payload, seal, status, plan, by_mapping, class, tries FROM dead_letters
WHERE (CAST(:scope AS TEXT) IS NULL OR scope = :scope) AND (CAST(:id AS BIGINT) IS NULL OR id = :id) AND status IN ('discarded', 'expired')
ORDER BY scope, id;

-- chosen_letters
SELECT id, scope, key, op, code, field, shape, message, attempts, first_failed_at, last_failed_at, payload, seal, status, plan, by_mapping, class, tries
FROM dead_letters
WHERE (CAST(:scope AS TEXT) IS NULL OR scope = :scope) AND (CAST(:id AS BIGINT) IS NULL OR id = :id)
    AND (CAST(:code AS TEXT) IS NULL OR code = :code) AND (CAST(:field AS TEXT) IS NULL OR field = :field)
    AND (CAST(:shape AS TEXT) IS NULL OR shape = :shape) AND (status IN ('discarded', 'expired')) = (:closed = 1)
ORDER BY scope, id LIMIT :limit;

-- letter_numbers
SELECT id FROM dead_letters
WHERE (CAST(:scope AS TEXT) IS NULL OR scope = :scope) AND (CAST(:code AS TEXT) IS NULL OR code = :code)
    AND (CAST(:field AS TEXT) IS NULL OR field = :field) AND (CAST(:shape AS TEXT) IS NULL OR shape = :shape)
    AND (CAST(:closed AS INTEGER) IS NULL OR (status IN ('discarded', 'expired')) = (:closed = 1))
ORDER BY id;

-- letter_groups
SELECT scope, code, field, shape, count(*) AS letters, min(id) AS id, min(first_failed_at) AS first_failed_at,
    max(last_failed_at) AS last_failed_at
FROM dead_letters WHERE status NOT IN ('discarded', 'expired') GROUP BY code, scope, field, shape ORDER BY 8 DESC, 6;

-- replay_letters
UPDATE dead_letters SET status = 'replay' WHERE id IN (SELECT CAST(value ->> 0 AS BIGINT) FROM {rows}) RETURNING id;

-- discard_letters
UPDATE dead_letters SET status = 'discarded', message = '', payload = '', seal = '', shape = ''
WHERE id IN (SELECT CAST(value ->> 0 AS BIGINT) FROM {rows}) RETURNING id;

-- expire_letters
UPDATE dead_letters SET status = 'expired', message = '', payload = '', seal = '', shape = ''
WHERE scope = :scope AND status = 'dead' AND last_failed_at < :before RETURNING id;

-- seals
SELECT seal, count(*) AS letters FROM dead_letters WHERE scope = :scope AND status = 'dead' AND seal NOT IN ('', 'plain') GROUP BY seal ORDER BY seal;

-- letters_to_seal
SELECT id, scope, key, message, payload, seal FROM dead_letters WHERE scope = :scope AND status = 'dead' AND seal NOT IN ('', :seal) ORDER BY id LIMIT 1000;

-- seal_letters
UPDATE dead_letters SET message = fresh.message, payload = fresh.payload, seal = fresh.seal
FROM (SELECT CAST(value ->> 0 AS BIGINT) AS id, value ->> 1 AS was, value ->> 2 AS message, value ->> 3 AS payload, value ->> 4 AS seal FROM {rows}) AS fresh
WHERE dead_letters.id = fresh.id AND dead_letters.seal = fresh.was;

-- refusals_of
SELECT code, field, class, count(*) AS records, min(id) AS id FROM dead_letters WHERE scope = :scope AND plan = :plan AND status = 'dead'
GROUP BY code, field, class ORDER BY 4 DESC, 1, 2 LIMIT 5;

-- bucket
SELECT body FROM buckets WHERE bucket = :bucket;

-- keep_bucket
INSERT INTO buckets (bucket, body) VALUES (:bucket, :body) ON CONFLICT (bucket) DO UPDATE SET body = excluded.body;

-- salt
SELECT value FROM salts;

-- keep_salt
INSERT INTO salts (id, value) VALUES (1, :value) ON CONFLICT (id) DO NOTHING;

-- boot
SELECT began FROM boots WHERE boot = :boot;

-- keep_boot
INSERT INTO boots (boot, began) VALUES (:boot, :began) ON CONFLICT (boot) DO NOTHING;

-- schema
SELECT body FROM schemas WHERE scope = :scope;

-- keep_schema
INSERT INTO schemas (scope, body) VALUES (:scope, :body) ON CONFLICT (scope) DO UPDATE SET body = excluded.body;

-- ledger
SELECT scope FROM ledgers WHERE scope = :scope;

-- keep_ledger
INSERT INTO ledgers (scope) VALUES (:scope) ON CONFLICT (scope) DO NOTHING;

-- forget_ledger
DELETE FROM ledgers WHERE scope = :scope;

-- model_schemas
SELECT version, at, taken, columns, changes FROM model_schemas WHERE scope = :scope ORDER BY version;

-- keep_model_schema
INSERT INTO model_schemas (scope, version, at, taken, columns, changes) VALUES (:scope, :version, :at, :taken, :columns, :changes)
ON CONFLICT (scope, version) DO NOTHING;

-- forgotten
SELECT sync, kind, record, hash, salt, at, answer, actor FROM forgotten WHERE place = :place ORDER BY at, hash, sync;

-- keep_forgotten
INSERT INTO forgotten (place, sync, kind, record, hash, salt, at, answer, actor)
VALUES (:place, :sync, :kind, :record, :hash, :salt, :at, :answer, :actor)
ON CONFLICT (place, sync, hash) DO UPDATE SET at = excluded.at, answer = excluded.answer, actor = excluded.actor;

-- lift_forgotten
DELETE FROM forgotten WHERE place = :place AND sync = :sync AND record = :record;

-- rewrite_run
UPDATE runs SET error = :error, report = :report WHERE id = :id;
