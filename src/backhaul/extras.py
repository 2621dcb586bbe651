"""Optional packages: what each extra of the package brings, and one clear line where it is not installed."""

from __future__ import annotations

from importlib import import_module

from backhaul.errors import UsageError

_MODULES = {
    "postgres": ("psycopg", "adbc_driver_manager", "adbc_driver_postgresql"),
    "mysql": ("aiomysql", "pymysql"),
    "encryption": ("cryptography",),
    "dynamodb": ("boto3",),
    "salesforce": ("jwt", "cryptography"),
}


def require_extra(name: str, what: str) -> None:
    """Import what an extra brings.

    Raises:
        UsageError: a package is missing; `what` says what needs it.
    """
    for module in _MODULES[name]:
        try:
            import_module(module)
        except ImportError:
            raise UsageError(
                f"{what} needs the package {module}", hint=f"pip install 'backhaul[{name}]'"
            ) from None
