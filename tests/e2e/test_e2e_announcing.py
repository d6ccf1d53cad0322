"""The daemon itself announces: through SNS to a queue that subscribes, beside the pictures, and by webhook."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any

from aws_servers import unique
from daemon_process import Start
from waiting import until
from world import Engines, World

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def subscribed(world: World) -> tuple[str, str]:
    """Make a topic and a queue that gets what is published there, as it is;
    return the topic's ARN and the queue's URL.
    """
    clients, queue = world.cloud.clients, world.cloud.queue(dlq=False)
    topic_arn = clients.sns.create_topic(Name=unique("results"))["TopicArn"]
    asked = clients.sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["QueueArn"])
    arn = asked["Attributes"]["QueueArn"]
    clients.sns.subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    return topic_arn, queue.url


def test_ends_are_announced_by_topic_object_and_webhook(world: World, engine: Engines, start: Start) -> None:
    came: list[tuple[Any, dict[str, Any]]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append((self.headers, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    topic_arn, results = subscribed(world)
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, args=(0.02,), daemon=True).start()
    daemon = start(
        world.conf(engine().base_url),
        {
            "SCHEDULER_NOTIFY_SNS_TOPIC_ARN": topic_arn,
            "SCHEDULER_NOTIFY_WEBHOOK_SECRET": SECRET,
            "SCHEDULER_INPUTS_ALLOW_HOSTS": f"127.0.0.1:{receiver.server_port}",
        },
    )
    content = {"prompt": "a fox", "steps": 1, "width": 64, "height": 64}
    told = {"id": "fox", "tasktype": "text-to-image", "prefix": "out", "context": {"order": [77]}}
    url = f"http://127.0.0.1:{receiver.server_port}/done"
    world.send({"metadata": told, "content": content}, world.task("a lighthouse") | {"webhook": url})
    [ours] = world.wishes
    announced: dict[str, dict[str, Any]] = {}

    def both() -> bool:
        found = world.cloud.clients.sqs.receive_message(QueueUrl=results, MaxNumberOfMessages=10)
        announced.update({(body := json.loads(each["Body"]))["id"]: body for each in found.get("Messages", [])})
        return len(announced) == 2 and len(came) == 1

    until(both, what="the announcement of both ends")
    fox = announced["fox"]
    assert (fox["result"], fox["context"], len(fox["image_url"])) == (True, {"order": [77]}, 1)
    key = fox["output_url"].removeprefix(f"s3://{world.bucket}/")
    assert key in world.object_keys()
    [(headers, body)] = came
    assert headers["webhook-signature"].startswith("v1,")
    assert (body["type"], body["data"]["task_id"]) == ("task.completed", ours)
    assert daemon.stop() == 0
    assert SECRET not in "".join(map(str, daemon.events()))
    assert "announced_at" in world.record(ours)
    assert world.counts() == (0, 0)
    receiver.shutdown()
    receiver.server_close()
