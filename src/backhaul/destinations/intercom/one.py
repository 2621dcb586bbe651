"""What is done with one record of Intercom: found, created, adopted, updated, taken away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from backhaul.destinations.intercom.answers import error_of, existing, record_of
from backhaul.destinations.intercom.fields import OWN_ID, fold
from backhaul.destinations.kit import Answer, Http, listing
from backhaul.errors import Halt, Unsettled
from backhaul.types import Delivered, Gone, Outcome, Rejected

NOT_THERE = "not_found"
Record = Mapping[str, Any]


async def find(http: Http, object: str, name: str, key: str) -> list[Record]:
    """Every record under a key. By e-mail it is search that answers, which is minutes behind (OpenAPI: search).

    Raises:
        Unsettled: the answer is of another form.
    """
    place = quote(key, safe="")
    if name == "email":
        answer = await _search(http, _is(name, key))
    elif name == "company_id":
        answer = await http.request("GET", "/companies", params={"company_id": key})
    elif name == OWN_ID:
        answer = await http.request("GET", f"/{object}/{place}")
    else:
        answer = await http.request("GET", f"/contacts/find_by_external_id/{place}")
        if answer.status == 404:  # it "only supports users and not leads" (OpenAPI)
            leads = {"operator": "AND", "value": [_is(name, key), _is("role", "lead")]}
            answer = await _search(http, leads)
    if answer.status in (404, 410):
        return []
    record = record_of(answer)
    found = listing(record, "data") if record.get("type") == "list" else [record]
    if any(item.get(OWN_ID) is None for item in found):
        raise Unsettled("Intercom's answer has a record without an id")
    return [item for item in found if fold(name, item.get(name)) == fold(name, key)]


def _is(field: str, value: str) -> Record:
    return {"field": field, "operator": "=", "value": value}


async def _search(http: Http, query: Record) -> Answer:
    return await http.request("POST", "/contacts/search", json={"query": query})


class One:
    """One record on its way."""

    def __init__(self, http: Http, object: str, name: str, key: str, record: Record, archives: bool) -> None:
        self._http, self._archives = http, archives
        self.object, self.name, self.key, self.record = object, name, key, record

    async def upsert(self, known: str | None) -> Outcome | None:
        """A company by its company_id, a contact by its id; one that is not known is created, or adopted."""
        if self.object == "companies":
            return self._taken(await self._http.request("POST", "/companies", json=self.record))
        if known is None and self.name == "email":
            found = await find(self._http, self.object, self.name, self.key)
            if len(found) > 1:
                return self._ambiguous(len(found))
            known = str(found[0][OWN_ID]) if found else None
        if known is not None:
            return await self._put(known)
        if self.name == "email" and self.record.get("role") == "lead":
            said = "a lead cannot be created by e-mail, which other leads may have"
            return Rejected(self.key, "lead_by_email", said)
        answer = await self._http.request("POST", "/contacts", json=self.record)
        return await self._adopt(error_of(answer)[1]) if answer.status == 409 else self._taken(answer, True)

    async def insert(self) -> Outcome | None:
        if self.name != "external_id":
            raise Halt(
                "a contact inserted by e-mail is not found for minutes",
                hint="identify by external_id, or use mode: upsert",
            )
        return self._taken(await self._http.request("POST", "/contacts", json=self.record), True)

    async def update(self, known: str | None) -> Outcome | None:
        found = [known] if known is not None else await self._ids()
        if len(found) != 1:
            return self._ambiguous(len(found)) if found else self._gone()
        return await self._put(found[0])

    async def delete(self, known: str | None) -> Outcome | None:
        """A company's DELETE archives it; a contact is archived or deleted for good, as configured."""
        found = [known] if known is not None else await self._ids()
        if len(found) != 1:
            return self._ambiguous(len(found)) if found else self._gone()
        place = f"/{self.object}/{quote(found[0], safe='')}"
        if self.object == "contacts" and self._archives:
            return self._taken(await self._http.request("POST", f"{place}/archive"))
        return self._taken(await self._http.request("DELETE", place))

    async def _ids(self) -> list[str]:
        return [str(item[OWN_ID]) for item in await find(self._http, self.object, self.name, self.key)]

    async def _put(self, known: str) -> Outcome | None:
        path = f"/{self.object}/{quote(known, safe='')}"
        answer = await self._http.request("PUT", path, json=self.record)
        fixed = self.name in ("company_id", "external_id")
        kept = record_of(answer).get(self.name) if fixed and answer.status < 300 else None
        if kept and str(kept) != self.key:  # a lead keeps the external_id that Intercom gave it (recorded)
            return Rejected(self.key, self.name, f"Intercom keeps the record under {kept}")
        return self._taken(answer)

    async def _adopt(self, said: str) -> Outcome | None:
        """The contact that is there already, where it is this record's: it has its key, or none that is another's."""
        ours = [] if "archived" in said else await self._ids()
        known = ours[0] if ours else existing(said)
        if known is None:
            return Rejected(self.key, "conflict", said)
        place = f"/contacts/{quote(known, safe='')}"
        if "archived" in said:
            back = await self._http.request("POST", f"{place}/unarchive")
            if back.status >= 300:
                return Rejected(self.key, "conflict", f"{said}; {error_of(back)[1]}")
        held = None if ours else await self._http.request("GET", place)
        if held is None or self._is_free(record_of(held).get(self.name)):
            return await self._put(known)
        if "archived" in said:
            await self._http.request("POST", f"{place}/archive")
        return Rejected(self.key, "conflict", f"{said}, under another {self.name}")

    def _is_free(self, held: Any) -> bool:
        return held in (None, "") or fold(self.name, held) == fold(self.name, self.key)

    def _taken(self, answer: Answer, created: bool = False) -> Outcome | None:
        """One outcome for what came back; None where it names no record."""
        code, said = error_of(answer)
        if answer.status in (404, 410):
            return Gone(self.key, code, said)
        if code:
            return Rejected(self.key, code, said)
        own = record_of(answer).get(OWN_ID)
        return None if own is None else Delivered(self.key, str(own), created)

    def _gone(self) -> Gone:
        return Gone(self.key, NOT_THERE, f"Intercom has no {self.object} with this {self.name}")

    def _ambiguous(self, count: int) -> Rejected:
        return Rejected(self.key, "ambiguous", f"{count} {self.object} have this {self.name}")
