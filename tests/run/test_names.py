"""Whatever a warehouse calls its schemas, ours are not among them."""

from __future__ import annotations

import pytest
from sites import Site


@pytest.mark.parametrize("schema", ["ledger", "temp", "main2", "backhaul_ledger", "system"])
def test_a_schema_of_any_name_is_read(site: Site, schema: str) -> None:
    site.fill(20).sql(
        f'create schema warehouse."{schema}"',
        f'create table warehouse."{schema}".acked as select * from t',
        f'create table warehouse."{schema}".candidates as select 1 as x',
    )
    for table in ("t", f'warehouse."{schema}".acked'):
        site.sync = {"model": {"warehouse": "main", "sql": f"select * from {table}", "primary_key": "id"}}
        site.write()
        for _ in range(2):
            report = site.run().report
            assert report.status == "succeeded", report.error
            site.sql("update t set v = v + 1", f'update warehouse."{schema}".acked set v = v + 1')
    assert site.run().delivered == 20
