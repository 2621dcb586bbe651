"""Slack: messages, one for each record, posted once.

What is known of its API: docs.slack.dev (chat.postMessage, rate limits), the errors that slack-ruby/slack-api-ref lists, and
recorded answers. Slack has no documented way to see that a message was posted before (slackapi/slack-api-specs#10).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field as Setting

from backhaul.destinations.kit import (
    Account,
    Answer,
    Batch,
    Destination,
    DestinationConfig,
    Http,
    Secret,
    Spec,
    classify_status,
    no_such_object,
    refusal_table,
)
from backhaul.errors import BackhaulError, Halt, NotApplied, Refused, Throttled, Unsettled
from backhaul.types import BatchLimits, Delivered, Field, FieldType, ObjectSchema, Op, Outcomes, Rate

_US = frozenset({
    "access_denied", "accesslimited", "account_inactive", "ekm_access_denied", "enterprise_is_restricted", "invalid_auth",
    "method_deprecated", "missing_scope", "no_permission", "not_allowed_token_type", "not_authed", "org_login_required",
    "team_access_not_granted", "team_added_to_org", "token_expired", "token_revoked", "two_factor_setup_required",
    "restricted_action", "deprecated_endpoint",
})  # fmt: skip
"""What Slack says of the token or the app, and of no message."""
_SLOWLY = frozenset({"rate_limited", "ratelimited", "message_limit_exceeded"})
_NOT_READ = frozenset({"request_timeout"})
"""The request did not arrive whole."""
_DOUBTFUL = frozenset({"fatal_error", "internal_error", "service_unavailable"})
"""Some of it may have been done, says Slack."""
_REFUSALS = refusal_table(
    record=("channel_not_found", "not_in_channel", "is_archived", "msg_too_long", "no_text", "invalid_blocks",
            "invalid_blocks_format",
            "invalid_attachments", "too_many_attachments", "cannot_reply_to_message", "duplicate_message_not_found",
            "thread_locked",
            "metadata_too_large", "messages_tab_disabled", "user_not_found"),
    capacity=("402",),
    transient=(*_SLOWLY, *_NOT_READ, *_DOUBTFUL),
    credential=_US,
)  # fmt: skip
"""`message_limit_exceeded` is of the workspace and minute, says Slack."""
_TEXT, _JSON, _FLAG = FieldType.STRING, FieldType.JSON, FieldType.BOOLEAN
_MEMBERS = {
    "text": Field("text", _TEXT, max_length=40_000, escapes=True),
    **{name: Field(name, _JSON) for name in ("blocks", "attachments")},
    **{name: Field(name, _TEXT) for name in ("thread_ts", "username", "icon_emoji", "icon_url")},
    **{
        name: Field(name, _FLAG)
        for name in ("reply_broadcast", "mrkdwn", "unfurl_links", "unfurl_media", "link_names")
    },
}
"""Of a message; texts above 40,000 characters are cut by Slack."""


class SlackConfig(DestinationConfig):
    """The keys of `type: slack`."""

    token: Secret
    """A bot token (`xoxb-…`) with the scope chat:write."""
    base_url: str = Setting(default="https://slack.com/api")


class Slack(Destination[SlackConfig]):
    """One app in one workspace."""

    spec: ClassVar[Spec] = Spec(
        name="slack",
        config=SlackConfig,
        docs="`channels/ID` (messages to one channel) and `messages` (each names its `channel`); mode `insert` only.",
        batch={Op.INSERT: BatchLimits(records=1, bytes=1_000_000)},
        limits=(Rate("second", 1, 1),),
        concurrency=4,
        states_account=True,
        repeatable=frozenset(),
        nulls="A null is left out of the message.",
        refusals=_REFUSALS,
        sources="docs.slack.dev, chat.postMessage; slack-api-ref",
        fixes={
            "channel_not_found": "use the channel's id (C…), and invite the app where the channel is private",
            "not_in_channel": "invite the app to the channel, or give it the scope chat:write.public",
            "is_archived": "take another channel, or bring this one back in Slack",
            "msg_too_long": "shorten the text in the model (left(text, 4000))",
            "no_text": "give every record a `text`: it is also what notifications show of `blocks`",
            "invalid_blocks": "mend the blocks: Slack's Block Kit Builder shows what is wrong with them",
        },
    )

    def __init__(self, config: SlackConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.config.token.get_secret_value()}"}

    async def account(self) -> Account | None:
        """Return the workspace of the token (https://docs.slack.dev/reference/methods/auth.test)."""
        said = (await self.http.request("POST", "/auth.test")).members()
        team = said.get("team_id")
        return Account(str(team), f"Slack workspace {said.get('team') or team}") if team else None

    async def describe(self, object: str) -> ObjectSchema:
        kind, _, channel = object.partition("/")
        if object != "messages" and not (kind == "channels" and channel):
            raise no_such_object(object, ["messages", "channels/ID"], "Slack")
        await self.http.request("POST", "/auth.test")
        own = {"id": Field("id", _TEXT, unique=True)}
        where = {} if channel else {"channel": Field("channel", _TEXT, required=True)}
        return ObjectSchema(object, own | where | _MEMBERS)

    async def write(self, batch: Batch) -> Outcomes:
        ((key, record),) = zip(batch.keys, batch.records(), strict=True)
        message = {name: value for name, value in record.items() if name != "id" and value is not None}
        for field in batch.fields:
            if field.escapes and isinstance(message.get(field.name), str):
                message[field.name] = _escaped(message[field.name])
        channel = batch.object.partition("/")[2]
        answer = await self.http.request(
            "POST", "/chat.postMessage", json=message | ({"channel": channel} if channel else {})
        )
        said = answer.members()
        named = said.get("channel") and said.get("ts")
        return Outcomes((Delivered(key, f"{said['channel']}/{said['ts']}" if named else None),))

    def classify(self, answer: Answer) -> BackhaulError | None:
        """HTTP 200 may be a refusal: `ok` says what it is."""
        by_status = classify_status(answer)
        if isinstance(by_status, Throttled | Halt | Unsettled):
            return by_status
        said = answer.members()
        if "ok" not in said:
            return by_status or Unsettled(f"HTTP {answer.status} with an answer that is not Slack's")
        return None if said.get("ok") is True else _refusal(said)


def _escaped(text: str) -> str:
    """A text without mentions and links (docs.slack.dev: Formatting message text, Escaping text)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _refusal(said: Mapping[str, Any]) -> BackhaulError:
    code = str(said.get("error") or "unknown_error")
    more = (said.get("response_metadata") or {}).get("messages") or (
        [said["needed"]] if "needed" in said else []
    )
    text = f"{code}: {'; '.join(map(str, more))}" if more else code
    if code in _US:
        return Halt(f"Slack refuses the token or the app: {text}")
    if code in _SLOWLY:
        return Throttled(text, code=code)
    if code in _NOT_READ:
        return NotApplied(text, code=code)
    return (Unsettled if code in _DOUBTFUL else Refused)(text, code=code)
