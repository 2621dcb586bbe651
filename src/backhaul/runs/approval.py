"""Plans that wait for a person: why one has to be reviewed, how long it stands, and why it cannot be delivered any more."""

from __future__ import annotations

from backhaul.errors import PlanMoved, UsageError
from backhaul.ledger.plan import Plan, plan_from
from backhaul.runs.sending import keep_plan
from backhaul.state.protocol import State
from backhaul.workspace import Workspace

_NAMED = 5
"""Fields that a message names."""


def needs_review(approve: str, plan: Plan) -> str:
    """Why `approve` holds a plan; empty where it does not."""
    if not plan.total or approve == "never":
        return ""
    if approve == "always":
        return "approve: always asks for a review of every run"
    if plan.first:
        return "approve: first asks for a review of the first sync"
    if plan.unapproved:
        return f"approve: first asks for a review, because the mapping of {named(plan.unapproved)} changed"
    return ""


def named(fields: tuple[str, ...]) -> str:
    """The first few of some fields."""
    more = f" and {len(fields) - _NAMED} more" if len(fields) > _NAMED else ""
    return ", ".join(fields[:_NAMED]) + more


def keep_held(workspace: Workspace, plan: Plan) -> str:
    """Keeps a held plan and gives its id: one that is held already and would send the same stays, so that who is reviewing
    it can deliver it; any other is superseded."""
    rows = workspace.state.do("plans_with_status", {"scope": plan.scope, "status": "held"})
    same = [row["id"] for row in rows if plan_from(row["header"], plan.path).digest == plan.digest]
    drop_held(workspace, plan.scope, but=same[-1] if same else None)
    if same:
        plan.path.unlink(missing_ok=True)
        return str(same[-1])
    keep_plan(workspace, plan, "held")
    return plan.id


def drop_held(workspace: Workspace, scope: str, but: str | None = None) -> None:
    """Forgets the plans of a scope that are held."""
    for row in workspace.state.do("plans_with_status", {"scope": scope, "status": "held"}):
        if row["id"] != but:
            workspace.state.drop_plan(row["id"], workspace.plan_path(row["id"]))


def moved(state: State, reviewed: str, now: Plan) -> PlanMoved:
    """What to say where a reviewed plan is not what would be sent now."""
    rows = state.do("plan", {"id": reviewed})
    why = _difference(plan_from(rows[0]["header"], now.path), now) if rows else "they moved"
    return PlanMoved(f"plan {reviewed} is not what the model and the ledger give now: {why}; nothing was sent",
                     hint=f"look again with `backhaul plan {now.sync}`")  # fmt: skip


def _difference(then: Plan, now: Plan) -> str:
    fields = tuple(sorted(
        name for name in then.mapping.keys() | now.mapping.keys() if then.mapping.get(name) != now.mapping.get(name)
    ))  # fmt: skip
    if fields:
        return f"the mapping of {named(fields)} changed"
    if then.after != now.after:
        return "something was delivered since"
    return "the model's rows or what is known of the destination's records changed"


def no_plan(workspace: Workspace, plan: str) -> UsageError:
    """What to say of a plan that is not there: whether it was superseded, or never was."""
    rows, names = workspace.state.do("run_of_plan", {"plan": plan}), workspace.scopes.names()
    if not rows or rows[0]["sync"] not in names:
        return UsageError(
            f"there is no plan {plan}", hint="plan again with `backhaul plan`; it prints the id"
        )
    sync, held = names[rows[0]["sync"]], rows[0]["status"] == "held"
    if not held:
        return UsageError(f"plan {plan} was delivered by the run of {sync} at {rows[0]['started_at']}",
                          hint=f"plan again with `backhaul plan {sync}`")  # fmt: skip
    waiting = workspace.state.do("plans_with_status", {"scope": rows[0]["scope"], "status": "held"})
    instead = f"now plan {waiting[-1]['id']} is held" if waiting else f"a later run of {sync} took its place"
    return UsageError(f"plan {plan} was superseded: {instead}", hint=f"look at `backhaul plan {sync}`")
