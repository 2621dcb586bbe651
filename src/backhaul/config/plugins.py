"""Connection types, found by name among the installed packages; a class is imported when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from backhaul.installed import declared

Kind = Literal["warehouses", "destinations"]


@dataclass(frozen=True, slots=True)
class Connector:
    """What config/ needs to know of a connection type."""

    config: type[BaseModel]
    dialect: str = "duckdb"
    """A warehouse's SQL, in sqlglot's names."""


class Missing(Exception):
    """A connection type is installed in part only. `hint` says what to install."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Plugins(Protocol):
    def names(self, kind: Kind) -> Sequence[str]:
        """The types there are."""

    def find(self, kind: Kind, name: str) -> Connector:
        """One of `names`. Raises: Missing where it cannot be imported."""


class EntryPoints:
    """The types that installed packages declare under `backhaul.warehouses` and `backhaul.destinations`."""

    def names(self, kind: Kind) -> Sequence[str]:
        return sorted(declared(kind))

    def find(self, kind: Kind, name: str) -> Connector:
        point = declared(kind)[name]
        try:
            cls = point.load()
        except ModuleNotFoundError as error:
            raise Missing(
                f"the type {name} needs the Python module {error.name}", _install(point, name)
            ) from None
        except (ImportError, AttributeError) as error:
            raise Missing(f"the type {name} cannot be imported: {error}", _install(point, name)) from None
        return Connector(_config(cls), _dialect(cls))


def _install(point: EntryPoint, name: str) -> str:
    package = point.dist.name if point.dist else "backhaul"
    extras = (point.dist.metadata.get_all("Provides-Extra") or []) if point.dist else []
    return f"pip install '{package}[{name}]'" if name in extras else f"pip install --upgrade {package}"


def _config(cls: Any) -> type[BaseModel]:
    spec = getattr(cls, "spec", None)
    config: type[BaseModel] = spec.config if spec is not None else cls.config
    return config


def _dialect(cls: Any) -> str:
    dialect = getattr(cls, "dialect", None)
    return dialect if isinstance(dialect, str) else "duckdb"
