"""The part of a destination's page that is made of what its connector declares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from backhaul.delivery.windows import spell
from backhaul.destinations.kit import Destination, DestinationConfig, JobsConfig, Spec
from backhaul.testing.conformance import DestinationSuite, offered
from backhaul.types import Op, RefusalClass

MARK, END = "<!-- declared: made by scripts/generate_docs.py -->", "<!-- /declared -->"


def page(
    text: str,
    name: str,
    kind: type[Destination[Any]],
    suites: Iterable[type[DestinationSuite]],
    simulated: bool,
) -> str:
    """The page with its part between the marks made anew; raises ValueError where it has none."""
    before, mark, rest = text.partition(MARK)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"docs/destinations/{name}.md has no {MARK} and {END}")
    own = [suite for suite in suites if suite.__name__.lower() == f"test{name}"]
    rows = "\n".join(f"| {what} | {said} |" for what, said in _rows(name, kind, own, simulated) if said)
    return (
        f"{before}{MARK}\n| | |\n| --- | --- |\n{rows}\n{_refusals(kind.spec)}{_fixes(kind.spec)}{END}{after}"
    )


def _rows(
    name: str, kind: type[Destination[Any]], suites: list[type[DestinationSuite]], simulated: bool
) -> Iterator[tuple[str, str]]:
    spec = kind.spec
    yield (
        "operations",
        "; ".join(
            f"{op} ({limits.records:,} record{'s' * (limits.records > 1)}, {_size(limits.bytes)} a request)"
            for op, limits in spec.batch.items()
        ),
    )
    yield "limits", ", ".join([*_windows(spec, ""), f"{spec.concurrency} at a time"])
    yield (
        "[limits of endpoints](../limits.md#endpoints-with-limits-of-their-own)",
        "; ".join(
            f"`{endpoint}`: {', '.join(_windows(spec, endpoint))}" for endpoint in spec.config.known_endpoints
        ),
    )
    yield (
        "repeated after an unknown outcome",
        ", ".join(sorted(map(str, spec.repeatable & set(spec.batch)))) or "nothing",
    )
    if spec.batch.keys() & {Op.UPSERT, Op.UPDATE}:
        yield "updates hold", "what changed" if spec.deltas else "all mapped fields"
    yield "clearing a field", spec.nulls
    yield "[account](../state.md)", _account(kind)
    yield "read back", "yes" if kind.read is not Destination.read else "no"
    yield "reads show a write", _lag(spec)
    yield "jobs", "yes" if issubclass(spec.config, JobsConfig) else ""
    yield (
        "its own keys",
        ", ".join(f"`{key}`" for key in _keys(spec)) + " ([what they mean](../configuration.md))",
    )
    if simulated:
        yield "to try it", f"`backhaul demo --destination {name}`, `backhaul sandbox {name}`"
    for suite in suites:
        done = offered(suite)
        yield (
            "[conformance](conformance.md)",
            f"{len(done) - len(suite.gaps)} of {len(done)} behaviours"
            + "".join(f"; not: {gap.replace('_', ' ')}" for gap in suite.gaps),
        )


def _account(kind: type[Destination[Any]]) -> str:
    """What a ledger belongs to, as the connector's method says it."""
    if kind.account is Destination.account:
        return "none is stated: the address stands for it"
    said = " ".join((kind.account.__doc__ or "").split())
    return said.removeprefix("Return ").partition(". ")[0].rstrip(".")


def _lag(spec: Spec) -> str:
    """When a write is shown, and how that is known."""
    if not spec.lag_source:
        return ""
    when = f"within {spell(spec.read_lag)}; `read_lag` sets another time" if spec.read_lag else "at once"
    return f"{when} ({spec.lag_source})"


def _windows(spec: Spec, endpoint: str) -> list[str]:
    rates = [rate for rate in spec.limits if rate.endpoint == endpoint]
    return [f"{rate.count:,} request{'s' * (rate.count > 1)} in {spell(rate.per)}" for rate in rates]


def _size(count: int) -> str:
    return f"{count / 1_000_000:g} MB" if count >= 1_000_000 else f"{count / 1000:g} kB"


def _keys(spec: Spec) -> list[str]:
    return [name for name in spec.config.model_fields if name not in DestinationConfig.model_fields]


_ACTS = {
    RefusalClass.RECORD: "dead letter, when it is narrowed down to the record",
    RefusalClass.CONFIGURATION: "other records are tried; the run stops if none is taken",
    RefusalClass.CAPACITY: "deferred: a later run sends it",
    RefusalClass.REFERENCE: "waits: sent again after the rest, and by up to ten runs",
    RefusalClass.CONFLICT: "waits: sent again after the rest, and by up to ten runs",
    RefusalClass.TRANSIENT: "tried again",
    RefusalClass.CREDENTIAL: "the run stops",
    RefusalClass.UNKNOWN: "dead letter, when it is narrowed down to the record",
}


def _refusals(spec: Spec) -> str:
    """The class of each code, and what the engine does about it."""
    codes: dict[RefusalClass, list[str]] = {}
    for code, kind in spec.refusals.items():
        codes.setdefault(kind, []).append(f"`{code}`")
    rows = "".join(
        f"| {', '.join(sorted(codes[kind]))} | {kind} | {_ACTS[kind]} |\n"
        for kind in RefusalClass
        if kind in codes
    )
    said = f"any other | {spec.unlisted} | {_ACTS[spec.unlisted]}"
    return (
        f"\n| a refusal with | is about ([classes](../refusals.md)) | and then |\n| --- | --- | --- |\n{rows}| {said} |\n"
        f"\nCodes: {spec.sources}.\n"
    )


def _fixes(spec: Spec) -> str:
    """What to do about each code that the connector has a word for."""
    fixes: Mapping[str, str] = spec.fixes
    if not fixes:
        return ""
    codes: dict[str, list[str]] = {}
    for code, todo in fixes.items():
        codes.setdefault(todo, []).append(f"`{code}`")
    rows = "\n".join(f"| {', '.join(said)} | {todo} |" for todo, said in codes.items())
    return f"\n| a record refused with | what to do |\n| --- | --- |\n{rows}\n"
