"""Messages that can never become a task, thousands of ways, among good ones: each is kept with its reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from daemon_process import Start
from waiting import until
from world import Engines, World

SAMPLES = Path(__file__).parents[1] / "samples" / "messages"


def refused_bodies() -> list[str]:
    """Return the sample bodies that are refused and that SQS would carry."""
    bodies = []
    for path in sorted(SAMPLES.rglob("*.body")):
        expected = json.loads((path.parent / f"{path.name.partition('.')[0]}.expected.json").read_text())
        text = path.read_bytes().decode()
        if "rejected" in expected and text and all(c >= " " or c in "\t\n\r" for c in text):
            bodies.append(text)
    return bodies


@pytest.mark.slow
def test_every_bad_message_is_in_the_dead_letter_queue_with_its_reason_and_every_good_one_is_done(
    world: World, engine: Engines, start: Start
) -> None:
    standin = engine()
    bad = refused_bodies()
    for n, body in enumerate(bad):
        world.send(body)
        if n % 5 == 0:
            world.send_task(f"good {n}", seed=n)
    daemon = start(world.conf(standin.base_url))

    world.until_done()

    world.assert_completed(world.wishes)
    assert set(world.records()) == set(world.wishes)
    letters = world.dead_letters()
    assert Counter(letter["body"] for letter in letters) == Counter(bad)
    assert all(letter["reject_reason"] and letter["reject_field"] for letter in letters)
    assert len(daemon.events("message_refused")) == len(bad)
    assert daemon.health()[0] == 200
    assert daemon.stop() == 0
    assert not daemon.stderr


def test_tasks_that_the_engine_or_we_refuse_fail_with_their_reason_and_those_for_other_hosts_go_back(
    world: World, engine: Engines, start: Start
) -> None:
    payload = {"prompt": "x", "steps": 1, "width": 64, "height": 64}
    kinds = {
        "too-large": ({"payload": payload | {"width": 100_000, "height": 100_000}}, "max_pixels"),
        "no-such-checkpoint": ({"payload": payload, "checkpoint": "nowhere"}, "no such checkpoint"),
        "no-such-sampler": ({"payload": payload | {"sampler_name": "Eulerish"}}, "Eulerish"),
        "steps-in-words": ({"payload": payload | {"steps": "many"}}, "steps"),
        "no-image": ({"task_type": "img2img", "payload": payload}, "init_images"),
        "no-such-script": ({"payload": payload | {"script_name": "rm"}}, "rm"),
    }
    for task_id, (message, _) in kinds.items():
        world.send({"task_id": task_id, "task_type": "txt2img"} | message)
    world.send({"task_id": "elsewhere", "task_type": "txt2img", "payload": payload, "runtime": "comfyui"})
    good = world.send_task("good")
    daemon = start(world.conf(engine().base_url))

    until(lambda: {world.status(task_id) for task_id in kinds} == {"failed"}, what="the end of all bad ones")
    world.until_status("completed", good)
    for task_id, (_, says) in kinds.items():
        error = world.record(task_id)["error"]
        assert error["class"] == "rejected", error
        assert says in json.dumps(error), error
    daemon.wait_for("task_lacks_runtime", task_id="elsewhere")
    assert world.record("elsewhere") == {}
    until(lambda: sum(world.counts()) == 1, what="one message left, for another host")
    assert world.counts(world.queue.dlq_url) == (0, 0)
    assert daemon.health()[0] == 200


def test_a_reference_may_be_early_and_a_record_that_makes_no_sense_is_closed(
    world: World, engine: Engines, start: Start
) -> None:
    dynamodb = world.cloud.clients.dynamodb
    dynamodb.put_item(
        TableName=world.table,
        Item={"task_id": {"S": "bad-record"}, "requestData": {"S": "not json"}, "taskStatus": {"S": "waiting"}},
    )
    world.send({"taskId": "bad-record", "storage": "dynamodb"}, {"taskId": "early", "storage": "dynamodb"})
    daemon = start(world.conf(engine().base_url))

    daemon.wait_for("message_refused")
    record = world.record("bad-record")
    assert (record["status"], record["taskStatus"]) == ("failed", "finished")
    assert "not JSON" in json.loads(record["processRes"])["error"]
    assert len(world.dead_letters()) == 1
    assert world.record("early") == {}, "a reference never makes the record it points to"
    until(lambda: sum(world.counts()) == 1, what="the early reference, waiting")

    request = json.dumps({"api": "/sdapi/v1/txt2img", "payload": {"prompt": "early", "steps": 1}})
    item = {"task_id": {"S": "early"}, "requestData": {"S": request}, "taskStatus": {"S": "waiting"}}
    dynamodb.put_item(TableName=world.table, Item=item)
    world.until_status("completed", "early")
    record = world.record("early")
    assert record["taskStatus"] == "finished"
    assert json.loads(record["processRes"])["images"] == [f"s3://{world.bucket}/sd/out/early-1.png"]
    assert world.object_keys() == ["sd/out/early-1.png"]


def test_without_a_dead_letter_queue_what_is_refused_lies_in_the_bucket(
    world: World, engine: Engines, start: Start
) -> None:
    world.queue = world.cloud.queue(visibility_s=5, dlq=False)
    world.send("no json", "[]")
    daemon = start(world.conf(engine().base_url))

    daemon.wait_for("queue_without_dlq")
    daemon.wait_for("message_refused", times=2)
    world.until_done()
    kept = [json.loads(world.picture(key)) for key in world.object_keys()]
    assert sorted(entry["body"] for entry in kept) == ["[]", "no json"]
    assert all(entry["reject_reason"] and entry["reject_field"] == "body" for entry in kept)
