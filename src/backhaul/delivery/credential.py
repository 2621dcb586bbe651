"""Which budget a destination draws on: that of its credential, whatever the destination is called and wherever it stands."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, SecretStr

from backhaul.destinations.kit import Destination


def bucket_of(destination: Destination[Any], salt: bytes) -> str:
    """The name of a destination's bucket in the state.

    Vendors count by account, and the credential is what two destinations (or two projects on one state) of one account have
    in common. The name is a hash of connector, address and every secret of the configuration, keyed with a random key
    of this state: nothing of a secret can be read from it, and names of two states cannot be compared. A credential that is
    exchanged begins a new bucket; `budget: NAME` gives several credentials of one account a bucket in common.
    """
    config = destination.config
    if config.budget is not None:
        return f"budget {config.budget}"
    parts = [destination.spec.name, destination.base_url.rstrip("/").lower(), *sorted(_named(config))]
    return blake2b(orjson.dumps(parts), key=salt, digest_size=16).hexdigest()


def _named(config: BaseModel) -> Iterator[str]:
    """What says whose a connection is: secrets, also under headers and in sections, and files. What is declared of single
    objects is none of it."""
    for _, value in config:
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, Path):
            yield str(value.absolute())
        elif isinstance(value, BaseModel):
            yield from _named(value)
        elif isinstance(value, dict):
            yield from (one.get_secret_value() for one in value.values() if isinstance(one, SecretStr))
