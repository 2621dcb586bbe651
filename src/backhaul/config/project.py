"""What backhaul.yml says, frozen, with the project's syncs."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, WithJsonSchema

from backhaul.config.parts import Name, Section
from backhaul.config.shape import choices
from backhaul.config.sync import SyncConfig, SyncDefaults
from backhaul.errors import UsageError
from backhaul.values import Duration, Retention, Size, TableAddress

VERSION = 1
"""The newest `version` of backhaul.yml that this release reads."""


def _sane(value: Size) -> Size:
    if not 16 * 1024**2 <= value <= 1024**5:
        raise ValueError("expected a size between 16 MiB and 1 PiB, such as 1 GiB")
    return value


def _bearable(value: Duration) -> Duration:
    if not 1 <= value <= 3600:
        raise ValueError("expected a time between 1 second and 1 hour, such as 30s")
    return value


Memory = Annotated[
    Size,
    AfterValidator(_sane),
    WithJsonSchema({"type": ["string", "integer"], "description": "Bytes, or 1 GiB."}),
]
Lease = Annotated[Duration, AfterValidator(_bearable)]


def _known(value: str) -> str:
    scheme, sign, _ = value.partition("://")
    if scheme == "dynamodb" and sign:
        TableAddress.parse(value)
    elif sign and scheme not in ("postgresql", "postgres"):
        raise ValueError(
            f"there is no state at {scheme}://: expected a folder, postgresql://… or dynamodb://TABLE"
        )
    return value


State = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_known)]


def key_bytes(text: str) -> bytes:
    """A key of 32 bytes from base64, in either of its alphabets. Raises: ValueError."""
    try:
        key = b64decode(text.strip().translate(str.maketrans("-_", "+/")), validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ValueError("expected 32 bytes in base64, as `openssl rand -base64 32` prints them")
    return key


def _key(value: SecretStr) -> SecretStr:
    key_bytes(value.get_secret_value())
    return value


LetterKey = Annotated[SecretStr, AfterValidator(_key)]


class History(Section):
    """Delivered plans that are kept for `why` and `forget`: with the values that were sent and those they replaced."""

    keep: Retention = Retention(30 * 86400)
    """For how long; 0 keeps none."""
    size: Size = Size(2 * 10**9)
    """How much of them at most; the oldest go first."""


class DeadLetters(Section):
    """What is kept of records that were refused."""

    keep: Retention = Retention(30 * 86400)
    """For how long after the last refusal; their records stay rejected until their values change."""
    keys: tuple[LetterKey, ...] = ()
    """Keys to encrypt them with, as `${NAME}`: 32 bytes in base64, the newest first. Without any, their payloads are read from
    kept plans (see `history`)."""

    def secrets(self) -> list[bytes]:
        """The keys, the newest first."""
        return [key_bytes(key.get_secret_value()) for key in self.keys]


class BackhaulFile(Section):
    """The keys of backhaul.yml."""

    version: Annotated[int, Field(ge=1, le=VERSION)] = VERSION
    """The version of this file's format."""
    project: Name
    """The name of the project."""
    state: State = ".backhaul"
    """A folder, relative to this file, postgresql://user:${PASSWORD}@host/db, or dynamodb://TABLE?region=eu-central-1."""
    lease: Lease = Duration(30.0)
    """How long a worker owns a sync unheard of, where the state is a database: when one dies, its syncs are free again
    after so long and the timeout of a request."""
    warehouses: dict[Name, dict[str, Any]] = Field(default={})
    """Named connections that models are read from. Each has a `type` and the keys of that type."""
    destinations: dict[Name, dict[str, Any]] = Field(default={})
    """Named connections that records are delivered to. Each has a `type` and the keys of that type."""
    memory_limit: Memory = Size(1024**3)
    """Memory of the embedded engine; beyond it, it works on disk."""
    history: History = History()
    """What is kept of delivered plans."""
    dead_letters: DeadLetters = DeadLetters()
    """What is kept of records that were refused."""
    defaults: SyncDefaults = SyncDefaults()
    """What every sync takes unless its own file says otherwise."""


class Project(BaseModel):
    """A project that has been read and found free of problems. Its repr and dump hold no connection."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
    )

    root: Path
    name: str
    state: str = Field(repr=False, exclude=True)
    warehouses: dict[str, Any] = Field(repr=False, exclude=True)
    """The configuration of each warehouse, an object of its type's own class."""
    destinations: dict[str, Any] = Field(repr=False, exclude=True)
    """The configuration of each destination, an object of its type's own class."""
    syncs: dict[str, SyncConfig]
    lease: Duration = Duration(30.0)
    memory_limit: Size = Size(1024**3)
    history: History = History()
    dead_letters: DeadLetters = Field(default=DeadLetters(), repr=False, exclude=True)
    defaults: SyncDefaults = SyncDefaults()
    secrets: frozenset[str] = Field(default=frozenset(), repr=False, exclude=True)
    """What must never be shown: values that came from outside into secret keys and DSNs."""
    warehouse_types: dict[str, str] = Field(default={}, repr=False)
    destination_types: dict[str, str] = Field(default={}, repr=False)

    @property
    def state_path(self) -> Path:
        """The folder of the state; of a state in a database, that of what a worker keeps on its own disk."""
        return self.root / (".backhaul" if "://" in self.state else self.state)

    def warehouse_type(self, name: str) -> str:
        """The `type` of a warehouse."""
        return self.warehouse_types[name]

    def destination_type(self, name: str) -> str:
        """The `type` of a destination."""
        return self.destination_types[name]

    def select(self, names: Sequence[str] = ()) -> list[SyncConfig]:
        """The syncs that any of these names or globs mean, in the order given; a glob, or no name, gives its syncs by name. A
        sync comes after those of them that it depends on.

        Raises:
            UsageError: a name or a glob means no sync.
        """
        chosen = dict.fromkeys(
            name
            for pattern in names or ("*",)
            for name in (self._matching(pattern) if names else sorted(self.syncs))
        )
        ordered: dict[str, SyncConfig] = {}

        def place(name: str) -> None:
            for earlier in self.syncs[name].depends_on:
                if earlier in chosen and earlier not in ordered:
                    place(earlier)
            ordered[name] = self.syncs[name]

        for name in chosen:
            if name not in ordered:
                place(name)
        return list(ordered.values())

    def _matching(self, pattern: str) -> Iterable[str]:
        found = sorted(name for name in self.syncs if name == pattern or fnmatchcase(name, pattern))
        if not found:
            raise UsageError(
                f"there is no sync {pattern!r} in {self.name}", hint=choices(pattern, self.syncs)
            )
        return found
