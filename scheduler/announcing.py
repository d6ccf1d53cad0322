"""What is told of an end, to whom, in which order: the object beside the pictures, the topic, the webhook, a note.

Over ports only. It is called between the record and the delete, by threads of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

import structlog

from scheduler.domain.ends import End, read_images
from scheduler.domain.errors import Unstorable
from scheduler.domain.keys import output_key
from scheduler.domain.ports import ImageStore, TaskStore, Topic, Webhooks
from scheduler.domain.task import Result, Task
from scheduler.observe.metrics import Metrics
from scheduler.wire import eks_result, webhook

log = structlog.get_logger()
T = TypeVar("T")


class Insist(Protocol):
    """Makes a call until it succeeds, however long AWS is unavailable;
    raises Unavailable when there is no time left.
    """

    def __call__(self, call: Callable[[], T]) -> T:
        """Return what `call` returns."""


class Announcer:
    """Tells others of ends. `topic` is None where none is configured; `address` is where clients find a key."""

    def __init__(
        self,
        *,
        tasks: TaskStore,
        images: ImageStore,
        bucket: str,
        address: Callable[[str], str],
        topic: Topic | None,
        webhooks: Webhooks,
        metrics: Metrics,
    ) -> None:
        self._tasks = tasks
        self._images = images
        self._bucket = bucket
        self._address = address
        self._topic = topic
        self._webhooks = webhooks
        self._metrics = metrics

    def wants(self, task: Task) -> bool:
        """Tell whether anybody is told of the end of `task`; of the others nothing is written either."""
        return self._topic is not None or task.format.is_eks or task.webhook is not None

    def announce(self, end: End, insist: Insist) -> None:
        """Tell everybody who wants to know, and note in the record that it was done.

        What AWS will never take is told in the log and left out. Raises Unavailable when `insist` gives up; then
        whoever gets the message next does it anew, under the same id.
        """
        end = self._whole(end, insist)
        task, topic = end.task, self._topic
        if task.format.is_eks:
            key = output_key(task, run_no=end.run_no)
            told = eks_result.output(task, end.outcome)
            self._tell("output", end, insist, lambda: self._images.put_json(key, told))
        if topic is not None:
            message = eks_result.announcement(task, end.outcome, run_no=end.run_no, bucket=self._bucket)
            # Theirs has no attributes; an `output_url` of its own for every run names it.
            named = None if task.format.is_eks else end.id
            self._tell("sns", end, insist, lambda: topic.publish(message, named=named))
        if task.webhook is not None:
            body = webhook.body(end, address=self._address)
            self._webhooks.send(task.webhook, body, named=end.id, task_id=task.task_id)
        insist(lambda: self._tasks.announced(task.task_id, attempt=end.attempt))

    def _whole(self, end: End, insist: Insist) -> End:
        """Return the end with the images that its record only points to."""
        if not isinstance(end.outcome, Result) or end.outcome.images or end.outcome.images_key is None:
            return end
        key = end.outcome.images_key
        listed = insist(lambda: self._images.read_json(key))
        if listed is None:
            log.warning("images_list_missing", task_id=end.task.task_id, key=key)
            return end
        return replace(end, outcome=replace(end.outcome, images=read_images(listed["images"])))

    def _tell(self, kind: str, end: End, insist: Insist, call: Callable[[], None]) -> None:
        try:
            insist(call)
        except Unstorable as error:
            self._metrics.announcements.labels(kind, "refused").inc()
            log.warning("announcement_refused", task_id=end.task.task_id, kind=kind, error=error.message)
        else:
            self._metrics.announcements.labels(kind, "sent").inc()
