"""Which path does what: it turns a request into a reply and knows no sockets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from scheduler.local.jobapi.faults import AskFault, PostFault
from scheduler.local.jobapi.forms import FORMS, Form
from scheduler.local.jobapi.shop import Shop
from scheduler.local.serving.server import Reply, Request
from scheduler.local.standin.fields import json_object, read
from scheduler.local.standin.refusals import Invalid, Plain

API = "/api/v1/"
CONTROL = "/standin/"
BROKEN = Reply(500, b"Internal Server Error", "text/plain; charset=utf-8")
BUSY = Reply(503, b'{"detail":"Service Unavailable"}')
NONSENSE = b"<html>not what you asked for</html>"

Action = Callable[[Request], Reply]


class Application:
    """All routes over one shop."""

    name = "job-api-standin"

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._routes: dict[str, dict[str, Action]] = {
            "/": {"GET": lambda _: _reply(200, {"message": "job API stand-in"})},
            "/health": {"GET": lambda _: _reply(200, {"status": "healthy", "message": "ready"})},
            f"{CONTROL}stats": {"GET": lambda _: _reply(200, shop.stats())},
            f"{CONTROL}faults": {"POST": self._add_fault, "DELETE": self._heal},
            **{f"{API}{form.kind}/jobs": {"POST": self._submission(form)} for form in FORMS},
        }

    def handle(self, request: Request) -> Reply:
        """Answer one request; a refusal is an answer too."""
        path = urlsplit(request.target).path
        self._shop.diary.request(request.method, path if path in self._routes else path.rpartition("/")[0])
        try:
            return self._action(request.method, path)(request)
        except (Invalid, Plain) as refusal:
            return _reply(refusal.status, refusal.body)

    def _action(self, method: str, path: str) -> Action:
        verbs = self._routes.get(path) or self._question(path)
        if not verbs:
            raise Plain(404, "Not Found")
        if method not in verbs:
            raise Plain(405, "Method Not Allowed")
        return verbs[method]

    def _question(self, path: str) -> dict[str, Action]:
        """Return what may be done at a path that ends with a job's id; nothing where there is no such path."""
        asked, _, job_id = path.rpartition("/")
        kinds = {f"{API}jobs": None} | {f"{API}{form.kind}/jobs": form.kind for form in FORMS}
        if asked not in kinds or not job_id:
            return {}
        return {"GET": lambda _: self._told(unquote(job_id), kinds[asked])}

    def _submission(self, form: Form) -> Action:
        def submit(request: Request) -> Reply:
            values = read(form.fields, json_object(request.body, request.headers.get("content-type")))
            fault = self._shop.faults.of_post(values["prompt"])
            if fault is PostFault.POST_ERROR:
                return BROKEN
            if fault is PostFault.POST_BUSY:
                return BUSY
            job = self._shop.submit(form.kind, values)
            return Reply(202, NONSENSE) if fault is PostFault.POST_GARBLED else _reply(202, job.answer())

        return submit

    def _told(self, job_id: str, kind: str | None) -> Reply:
        """Answer a question after a job, of one kind or of any."""
        job = self._shop.find(job_id)
        if job is None or kind not in {None, job.kind}:
            raise Plain(404, f"Job {job_id} not found")
        match self._shop.faults.of_question(job.prompt):
            case AskFault.ASK_ERROR:
                return BROKEN
            case AskFault.ASK_GARBLED:
                return Reply(200, NONSENSE)
            case _:
                return _reply(200, job.answer())

    def _add_fault(self, request: Request) -> Reply:
        try:
            self._shop.faults.add(json_object(request.body, request.headers.get("content-type")))
        except ValueError as error:
            raise Plain(400, str(error)) from error
        return _reply(200, self._shop.faults.left())

    def _heal(self, _request: Request) -> Reply:
        self._shop.faults.clear()
        return _reply(200, None)


def _reply(status: int, answer: Any) -> Reply:
    return Reply(status, json.dumps(answer, separators=(",", ":")).encode())
