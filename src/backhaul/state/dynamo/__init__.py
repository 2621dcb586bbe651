"""The state in one DynamoDB table: conditional writes in place of SQL, and no server to keep.

Every item has a `pk` and an `sk`. Items by what they are, `pk` before the bar and `sk` after it:
    state | version                     run/ID | run            plan/ID | plan, history, intent/LOW, outcome/LOW, run/…
    syncs/PROJECT | NAME                runs/SYNC | NUMBER      plans, history | SCOPE/ID
    scopes/PROJECT | SCOPE              running/SYNC | ID       folds/SCOPE | NUMBER
    accounts/PROJECT | DESTINATION/…    letters | SCOPE/KEY     file/NAME | name, begun/TOKEN
    lease/SYNC | lease                  bucket/NAME | bucket    part/TOKEN/NUMBER | part
    salt, counter                       schema, ledgers | SCOPE forgotten/PLACE | SYNC/HASH
    model_schemas/SCOPE | VERSION
where SYNC and SCOPE are ids (scopes.py).
"""
