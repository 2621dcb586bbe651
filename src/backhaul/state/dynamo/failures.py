"""What is wrong with the table, in one line each, whatever the driver says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backhaul.errors import StateError

_CODES = {
    "AccessDeniedException": "refuses this role: it may not do what the state needs",
    "UnrecognizedClientException": "does not know these credentials",
    "InvalidClientTokenId": "does not know these credentials",
    "ExpiredTokenException": "refuses these credentials: they have expired",
    "ExpiredToken": "refuses these credentials: they have expired",
    "InvalidSignatureException": "refuses the signature: the secret key is wrong, or this host's clock is",
    "MissingAuthenticationToken": "asks for credentials",
    "ProvisionedThroughputExceededException": "is throttling, and went on with it",
    "ThrottlingException": "is throttling, and went on with it",
    "RequestLimitExceeded": "is throttling, and went on with it",
    "LimitExceededException": "has no room for another table",
    "ResourceInUseException": "is being made or changed: run again in a moment",
    "InternalServerError": "has trouble of its own",
    "ServiceUnavailable": "has trouble of its own",
}
"""https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html"""
_DRIVER = {
    "NoCredentialsError": "asks for credentials, and there are none in the environment, a profile or a role",
    "PartialCredentialsError": "asks for credentials, and those there are lack a part",
    "CredentialRetrievalError": "asks for credentials, and they could not be had",
    "TokenRetrievalError": "asks for credentials, and they could not be had",
    "ProfileNotFound": "asks for credentials, and AWS_PROFILE names a profile that there is not",
    "NoRegionError": "is in no region: write dynamodb://TABLE?region=eu-central-1, or set AWS_REGION",
    "InvalidRegionError": "is in a region that there is not",
    "EndpointConnectionError": "does not answer: is the region or the endpoint right?",
    "ConnectTimeoutError": "does not answer: is the region or the endpoint right?",
    "ReadTimeoutError": "does not answer in time",
    "ConnectionClosedError": "closed the connection",
    "SSLError": "has a TLS certificate that is not trusted",
    "ParamValidationError": "cannot store this",
}


class NoTable(StateError):
    """The table does not exist."""


class Busy(StateError):
    """A transaction had the item, and this write did not happen."""


class Refuted(StateError):
    """A condition of a write did not hold, so that none of the transaction was stored. `index`: of the write."""

    def __init__(self, index: int) -> None:
        super().__init__("another process changed the state at the same moment", hint="run again")
        self.index = index


@contextmanager
def storing(table: str) -> Iterator[None]:
    """Names what is wrong with the table.

    Raises:
        StateError
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _answered(table, error.response) from None
    except BotoCoreError as error:
        said = _DRIVER.get(type(error).__name__, f"cannot be used: {_line(error)}")
        raise _failure(table, said) from None
    except ValueError as error:  # an endpoint that is no URL
        raise _failure(table, f"cannot be used: {_line(error)}") from None


def _answered(table: str, response: Any) -> StateError:
    code, message = response["Error"]["Code"], str(response["Error"].get("Message", ""))
    if code == "ResourceNotFoundException":
        return NoTable(f"there is no table {table}")
    if code == "TransactionConflictException":
        return Busy(f"the state's DynamoDB ({table}) is too busy to store anything", hint="run again")
    if code == "ConditionalCheckFailedException":
        return Refuted(0)
    if "item size" in message.lower() or any(
        "item size" in str(reason.get("Message", "")).lower()
        for reason in response.get("CancellationReasons", ())
    ):
        return _failure(table, "takes at most 400 KB an item, and this one is larger")
    if code == "ValidationException" and "key" in message.lower():
        return StateError(f"the table {table} has other keys than a backhaul state; it was left as it is")
    return _failure(table, _CODES.get(code, f"cannot be used: {code}: {message[:200]}"))


def _failure(table: str, said: str) -> StateError:
    return StateError(
        f"the state's DynamoDB ({table}) {said}",
        hint="nothing was sent after this; see docs/troubleshooting.md",
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
