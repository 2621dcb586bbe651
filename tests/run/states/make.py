"""Makes a state to upgrade from: `PYTHONPATH=src:tests/run python make.py OUT.tar.gz`, from the checkout of the commit that it is of.

It leaves what a bad day leaves: delivered records, a refused one, one of unknown end, and a run that was killed in flight.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from sites import Servers, Site

from backhaul.testing.sink import Faults, Sink


def main(out: str) -> None:
    """One project, four runs."""
    servers, sink = Servers(), Sink()
    with tempfile.TemporaryDirectory() as made:
        site = Site(Path(made), servers, sink, servers.start(sink.app()), api={"timeout": "1s"}, batch_size=2)
        site.write()
        sink.faults = Faults(refuse_key="7")
        assert site.fill(20).run().report.rejected == 1
        sink.faults = Faults(silence=3.0)
        assert site.sql("update t set name = 'in doubt' where id = 3").run().report.unknown == 1
        sink.faults = Faults(latency=0.3)
        seen = len(sink.seen)
        process = site.sql("update t set name = 'killed' where id >= 10").command("run")
        while len(sink.seen) < seen + 3:
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert site.rows("select count(*) from intents") != [(0,)]
        sink.faults = Faults()
        time.sleep(1)
        (site.root / "sink.json").write_text(json.dumps(sink.records))
        with tarfile.open(out, "w:gz") as tar:
            for name in (".backhaul", "warehouse.duckdb", "sink.json"):
                tar.add(site.root / name, name)
    servers.close()


main(sys.argv[1])
