"""The state in one DynamoDB table: conditional writes in place of SQL, and no server to keep.

Every item has a `pk` and an `sk`. Items by what they are, `pk` before the bar and `sk` after it:
    state | version                     run/ID | run            plan/ID | plan, history, intent/LOW, outcome/LOW, run/…
    lease/SYNC | lease                  runs/SYNC | NUMBER      plans, history | SYNC/ID
    letters | SYNC/KEY                  running/SYNC | ID       folds/SYNC | NUMBER
    bucket/NAME | bucket                syncs | SYNC            file/NAME | name, begun/TOKEN
    salt, counter                       schema, ledgers | SYNC  part/TOKEN/NUMBER | part
    model_schemas/SYNC | VERSION        forgotten/SYNC | HASH
"""
