"""What goes wrong with ComfyUI, and what must come of it; and jobs of the job API, which outlive the daemon."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import requests
from aws_servers import unique
from daemon_process import Start
from orders import CAMERA_ANGLE, graph, input_png
from PIL import Image
from waiting import until
from world import Comfys, World

from scheduler.local.comfy.process import ComfyOptions, ComfyProcess
from scheduler.local.jobapi.process import JobApiOptions, JobApiProcess


def conf_for(world: World, url: str, **more: object) -> Path:
    return world.conf(engines={"comfyui": f"comfyui {url}"}, **more)


def until_rendering(standin: ComfyProcess, prompt: str) -> None:
    until(lambda: standin.stats()["renders"].get(prompt), what=f"the render of {prompt}")


def post_as_another(standin: ComfyProcess, prompt: str, *, steps: int) -> None:
    """Queue a prompt of somebody else's."""
    with requests.Session() as session:
        session.trust_env = False
        body = {"prompt": graph(prompt, steps=steps), "client_id": "somebody-else"}
        assert session.post(f"{standin.base_url}/prompt", json=body, timeout=10).status_code == 200


def test_killed_in_the_middle_of_a_graph_it_is_done_once_by_the_next(world: World, comfy: Comfys, start: Start) -> None:
    standin = comfy()
    task_id, other = world.send_graph("struck", steps=50), world.send_graph("other")
    conf = conf_for(world, standin.base_url)
    first = start(conf)
    until_rendering(standin, "struck")
    first.kill()

    second = start(conf)

    world.until_done()
    world.assert_all_completed()
    assert world.record(task_id)["runs"] == 2
    ended = [event["task_id"] for daemon in (first, second) for event in daemon.events("task_ended")]
    assert sorted(ended) == sorted([task_id, other])


def test_an_engine_killed_under_a_graph_costs_it_one_run_and_the_others_none(
    world: World, comfy: Comfys, start: Start
) -> None:
    standin = comfy()
    struck = world.send_graph("struck", steps=60)
    others = [world.send_graph(f"other {n}") for n in range(4)]
    daemon = start(conf_for(world, standin.base_url))
    until_rendering(standin, "struck")

    standin.kill()
    daemon.wait_for("engine_down")
    daemon.until_health(503, says="comfyui")
    world.until_status("pending", struck)
    standin.start(port=standin.port)

    world.until_done()
    world.assert_all_completed()
    assert world.record(struck)["runs"] == 2
    assert {world.record(task_id)["runs"] for task_id in others} == {1}
    assert daemon.health()[0] == 200


def test_an_engine_started_again_at_once_has_lost_its_queue_and_the_graph_is_posted_again(
    world: World, comfy: Comfys, start: Start
) -> None:
    standin = comfy()
    standin.fault("lost", match="forgotten", count=1)
    forgotten = world.send_graph("forgotten", steps=5)
    daemon = start(conf_for(world, standin.base_url))
    daemon.wait_for("task_will_be_retried", task_id=forgotten)
    struck = world.send_graph("struck", steps=60)
    until_rendering(standin, "struck")

    standin.kill()
    standin.start(port=standin.port)

    world.until_done()
    world.assert_all_completed()
    assert (world.record(forgotten)["runs"], world.record(struck)["runs"]) == (2, 2)


def test_the_end_of_a_graph_is_seen_though_its_events_are_not(world: World, comfy: Comfys, start: Start) -> None:
    standin = comfy()
    standin.fault("silent", match="silent", count=1)
    standin.fault("drop", match="dropped", count=1, after_steps=2)
    ids = [world.send_graph(prompt, steps=10) for prompt in ("silent", "dropped", "plain")]
    start(conf_for(world, standin.base_url))

    world.until_done()

    world.assert_all_completed()
    assert {world.record(task_id)["runs"] for task_id in ids} == {1}
    assert standin.stats()["renders"] == {"silent": 1, "dropped": 1, "plain": 1}


def test_a_graph_past_its_deadline_is_interrupted_and_failed_and_the_next_one_is_whole(
    world: World, comfy: Comfys, start: Start
) -> None:
    standin = comfy()
    late, good = world.send_graph("late", steps=500), world.send_graph("good", steps=3)
    daemon = start(conf_for(world, standin.base_url, task_deadline_s=1.5))

    world.until_done()

    assert world.record(late)["error"]["class"] == "deadline"
    assert "images" not in world.record(late)
    world.assert_completed([good])
    world.assert_no_orphans()
    assert standin.stats()["renders_whole"] == {"good": 1}
    assert daemon.health()[0] == 200


def test_a_graph_out_of_memory_is_tried_again_smaller_and_then_fails(world: World, comfy: Comfys, start: Start) -> None:
    standin = comfy()
    standin.fault("oom", match="once", count=1)
    standin.fault("oom", match="batch", max_batch=1)
    standin.fault("oom", match="always", count=None)
    once, batch = world.send_graph("once"), world.send_graph("batch", batch=3)
    always, good = world.send_graph("always"), world.send_graph("good")
    daemon = start(conf_for(world, standin.base_url))

    world.until_done()

    world.assert_completed([once, batch, good])
    world.assert_no_orphans()
    record = world.record(always)
    assert (record["status"], record["error"]["class"], record["runs"]) == ("failed", "out-of-memory", 1)
    assert "out of memory" in record["error"]["engine"]
    assert standin.stats()["renders"]["always"] == 2
    assert len(daemon.events("out_of_memory")) == 3
    assert daemon.health()[0] == 200


def test_a_cancelled_graph_ends_alone_whether_it_runs_or_waits_in_the_engine(
    world: World, comfy: Comfys, start: Start
) -> None:
    standin = comfy()
    start(conf_for(world, standin.base_url))
    running = world.submit_graph("running", steps=1000)
    until_rendering(standin, "running")
    post_as_another(standin, "neighbour", steps=400)

    assert world.store().request_cancel(running) == "processing"
    until_rendering(standin, "neighbour")
    waiting = world.submit_graph("waiting", steps=1000)
    until(lambda: standin.stats()["queue_pending"], what="the graph in the engine's queue")
    assert world.store().request_cancel(waiting) == "processing"
    world.until_status("cancelled", running, waiting, deadline_s=10)
    after = world.submit_graph("after")

    world.until_done()
    world.assert_completed([after])
    world.assert_no_orphans()
    assert standin.stats()["renders_whole"] == {"neighbour": 1, "after": 1}
    assert "waiting" not in standin.stats()["renders"]


def test_without_comfyui_graphs_wait_unspent_until_it_is_up(world: World, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    ids = [world.submit_graph(f"graph {n}") for n in range(3)]
    daemon = start(conf_for(world, f"http://127.0.0.1:{port}")).started()
    daemon.until_health(503, says="refused")
    assert world.counts() == (3, 0), "nothing is taken that cannot be worked on"
    assert {(world.status(i), world.record(i).get("runs", 0)) for i in ids} == {("pending", 0)}

    with ComfyProcess(ComfyOptions(seconds_per_step=0.02)) as late:
        late.stop()
        late.start(port=port)
        world.until_done()

        world.assert_all_completed()
        assert {world.record(i)["runs"] for i in ids} == {1}
        assert daemon.health()[0] == 200


def test_killed_in_the_middle_of_a_job_the_next_takes_the_job_up_again(world: World, start: Start) -> None:
    world.cloud.clients.s3.put_object(Bucket=world.bucket, Key="uploads/in.png", Body=input_png())
    task_id = unique("job")
    request = {"image_url": f"s3://{world.bucket}/uploads/in.png", "prompt": "from above", "seed": 7, "steps": 120}
    options = JobApiOptions(bucket=world.bucket, s3_endpoint=world.cloud.url, seconds_per_step=0.02)
    with JobApiProcess(options) as jobs:
        conf = world.conf(engines={"job_api": f"job_api {jobs.base_url}"})
        world.send({"task_id": task_id, "api_path": CAMERA_ANGLE, "request_body": request})
        first = start(conf)
        until(lambda: "comfy_job_id" in world.record(task_id), what="the job")
        first.kill()
        job_id = world.record(task_id)["comfy_job_id"]

        second = start(conf)
        second.wait_for("job_resumed", task_id=task_id, job_id=job_id)
        world.until_status("completed", task_id)
        until(lambda: world.counts() == (0, 0), what="an empty queue")

        assert jobs.stats()["requests"][f"POST {CAMERA_ANGLE}"] == 1
        record = world.record(task_id)
        assert (record["comfy_job_id"], record["runs"]) == (job_id, 2)
        assert record["result_s3_uri"] == f"s3://{world.bucket}/results/{job_id}.png"
        with Image.open(io.BytesIO(world.picture(f"results/{job_id}.png"))) as picture:
            assert picture.size == (512, 512)
        assert world.counts(world.queue.dlq_url) == (0, 0)
