"""A remote for the conformance suite, over a simulation that is made with `backhaul.sandbox.kit`."""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Generic, TypeVar

from backhaul.sandbox.kit import Faults, Sandbox

SandboxT = TypeVar("SandboxT", bound=Sandbox)


class SandboxRemote(ABC, Generic[SandboxT]):
    """Implements `conformance.Remote`: a subclass says what the simulation holds and takes a record away from it.

    `connection` is the destination's entry in backhaul.yml; give it wide `rate_limits`, for limits have tests of their own.
    """

    refusal: ClassVar[str] = "unwelcome"
    """The code with which the simulation refuses everything (`Faults.refuse_all`)."""
    switches: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Faults of the suite that take other switches than the usual ones."""

    def __init__(self, sandbox: SandboxT, **connection: Any) -> None:
        self.sandbox = sandbox
        self.connection: Mapping[str, Any] = connection

    @abstractmethod
    def records(self) -> Mapping[str, Mapping[str, Any]]:
        """What it holds, by identifier; a nested value by its field's whole name (`address.city`)."""

    @abstractmethod
    def lose(self, key: str) -> None:
        """Takes a record away, as somebody else would."""

    def requests(self) -> int:
        """Requests that handed records over; the simulation says so in `request[RECORDS]`."""
        return sum(item.records > 0 for item in self.sandbox.requests)

    def fault(self, name: str | None, key: str = "") -> None:
        """See `conformance.Remote`."""
        switches: dict[str | None, Mapping[str, Any]] = {
            None: {}, "outage": {"error": 1.0}, "throttle": {"throttle": 0.5, "retry_after": 0.05},
            "reset_after": {"reset_after": 0.5}, "silent": {"omit": 0.5}, "hollow": {"hollow": 1.0},
            "refuse": {"refuse_key": key}, "poison": {"poison_key": key}, "reject_all": {"refuse_all": self.refusal},
            "payment": {"payment": 1.0},
        }  # fmt: skip
        switches.update(self.switches)
        self.sandbox.faults = Faults(**switches[name])


@contextmanager
def installed(name: str, target: str, source: str | None = None) -> Iterator[None]:
    """As if a package were installed that offers this destination: `installed("acme", "acme_backhaul:Acme")`. `source` is the
    module's text, where there is no such module to import yet."""
    module = target.partition(":")[0]
    with TemporaryDirectory(prefix="backhaul-installed-") as folder:
        about = Path(folder) / f"{module}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[backhaul.destinations]\n{name} = {target}\n")
        if source is not None:
            (Path(folder) / f"{module}.py").write_text(source, encoding="utf-8")
            sys.modules.pop(module, None)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(folder)
            if source is not None:
                sys.modules.pop(module, None)
