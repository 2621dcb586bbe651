"""Run by itself with the address of a simulated account: zenpy, a client under another licence, does what its users do."""

from __future__ import annotations

import sys
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from zenpy import Zenpy
from zenpy.lib.api_objects import Organization, User
from zenpy.lib.exception import APIException, RecordNotFoundException


class Plain(HTTPAdapter):
    """The client speaks https alone: its own transport is led to plain HTTP."""

    def send(self, request: Any, *args: Any, **more: Any) -> Any:
        plain = request.copy()
        plain.url = request.url.replace("https://acme.", "http://", 1)
        answer = super().send(plain, *args, **more)
        answer.request, answer.url = request, request.url
        return answer


def client(url: str) -> Zenpy:
    session = requests.Session()
    session.mount("https://", Plain())
    place = url.removeprefix("http://")
    who = {"subdomain": "acme", "email": "ada@example.com", "token": "sandbox"}
    return Zenpy(domain=place, **who, session=session, disable_cache=True)


def finished(desk: Zenpy, job: Any) -> Any:
    while job.status in ("queued", "working"):
        time.sleep(0.05)
        job = desk.job_status(id=job.id)
    return job


def main(url: str) -> None:
    desk = client(url)
    job = desk.users.create_or_update(
        [
            User(external_id="1", name="Ada", email="ada@example.com"),
            User(external_id="2", name="Bob", email="nowhere"),
        ]
    )
    job = finished(desk, job)
    assert job.status == "completed", job.status
    assert [row.status for row in job.results] == ["Created", "Failed"], job.results
    ada = desk.users(id=job.results[0].id)
    assert (ada.external_id, ada.email) == ("1", "ada@example.com")
    ada.user_fields["plan"] = "pro"
    assert desk.users.update(ada).user_fields["plan"] == "pro"
    assert desk.users.create_or_update(User(external_id="1", name="Ada L")).id == ada.id
    org = desk.organizations.create_or_update(Organization(external_id="o1", name="Acme"))
    assert desk.organizations(id=org.id).name == "Acme"
    try:
        desk.users.create(User(name="Other", email="ada@example.com"))
    except APIException as error:
        assert "already being used" in str(error), error
    else:
        raise AssertionError("an e-mail is taken")
    assert {field.key for field in desk.user_fields()} >= {"plan", "mrr"}
    desk.users.delete(ada)
    try:
        desk.users(id=ada.id)
    except RecordNotFoundException:
        sys.stdout.write("done\n")


if __name__ == "__main__":
    main(sys.argv[1])
