"""Opens the door to a table: `dynamodb://TABLE?region=…&endpoint=…`; credentials are found where AWS's tools find them."""

from __future__ import annotations

from functools import cache
from typing import Any

from backhaul.extras import require_extra
from backhaul.state.dynamo.failures import storing
from backhaul.values import TableAddress

_ATTEMPTS = 5
"""Of one request that is throttled or gets no answer: with the driver's own backoff some 8 seconds."""


def connect(address: TableAddress) -> Any:
    """A client, which any number of threads may use.

    Raises:
        UsageError: the driver is not installed.
        StateError: there is no region.
    """
    require_extra("dynamodb", "a state in DynamoDB")
    import boto3
    import botocore.session
    from botocore.config import Config

    config = Config(
        connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": _ATTEMPTS}
    )
    with storing(address.table):
        session = botocore.session.get_session()
        session.register_component("data_loader", _descriptions())
        return boto3.session.Session(botocore_session=session).client(
            "dynamodb", region_name=address.region, endpoint_url=address.endpoint, config=config
        )


@cache
def _descriptions() -> Any:
    """AWS's descriptions of its services, read once a process: that takes ten times as long as all else about a client."""
    import botocore.loaders

    return botocore.loaders.create_loader()
