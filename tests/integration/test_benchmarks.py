"""The benchmark measures what happens: it sees work done, work lost, work done twice, and where bad messages went."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture

from benchmarks import figures
from benchmarks.consumer import Stopped
from benchmarks.engine import CHECKPOINTS, Use
from benchmarks.loopback import Request
from benchmarks.pictures import Painter
from benchmarks.prices import item_bytes, usd_per_million
from benchmarks.proxy import Call, Image, billed_units, identify
from benchmarks.run import build_parser, main, parse_consumer
from benchmarks.runner import Observed, Watched
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.tables import report
from benchmarks.tasks import BAD_KINDS, FORMATS, make_tasks

LOSER = """
import boto3, os
sqs, url = boto3.client("sqs"), os.environ["BENCH_QUEUE_URL"]
while True:
    for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", ()):
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
"""


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]


def test_a_smoke_run_of_every_format_counts_images_calls_and_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = [f"--format={name}" for name in FORMATS]
    code = main(["--scenario=smoke", "--consumer=reference", *formats, f"--out={tmp_path}"])

    printed = capsys.readouterr()
    assert code == 0, printed.err
    results = lines_of(tmp_path)
    assert [result["consumer"] for result in results] == [f"reference-{name}" for name in FORMATS]
    for result in results:
        assert (result["done"], result["lost"], result["left"], result["deaths"]) == (6, 0, 0, 0)
        assert (result["duplicate_generations"], result["duplicate_images"]) == (0, 0)
        assert result["by_operation"]["s3 PutObject"] == 1
        assert result["by_operation"]["dynamodb UpdateItem"] == 1
        assert result["by_operation"].get("dynamodb GetItem", 0) == (1 if result["format"] == "predecessor" else 0)
        assert 0 < result["gpu_duty"] <= 1
        assert 0 < result["of_ideal"] <= 1
        assert result["usd_per_million_tasks"] > 5.625  # a PUT and a write; receives and deletes come on top
        assert result["peak_rss_mb"] > 10
        assert f"| {result['consumer']} " in printed.out


def test_a_consumer_that_deletes_unread_has_lost_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "loser.py"
    program.write_text(LOSER)
    command = f"loser={{python}} {program}"

    code = main(["--scenario=smoke", f"--consumer={command}", "--json", f"--out={tmp_path}"])

    printed = capsys.readouterr()
    (result,) = [json.loads(line) for line in printed.out.splitlines()]
    assert code == 1
    assert (result["consumer"], result["done"], result["lost"]) == ("loser", 0, 6)
    assert "smoke (loser, run 0)" in printed.err


def test_a_command_that_never_works_is_reported_with_its_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.runner.RESTART_AFTER_S", 0.0)

    code = main(["--scenario=smoke", "--consumer={python} -c 'exit(\"no such thing\")'", f"--out={tmp_path}"])

    assert code == 1
    assert "without receiving a message" in capsys.readouterr().err
    assert b"no such thing" in (tmp_path / "smoke.consumer.0.consumer.log").read_bytes()


SCENARIO = Scenario(name="small", about="", tasks=2, render_s=1.0)
TASKS = make_tasks(SCENARIO, "0f")


def call(at_s: float, service: str, operation: str, *, filled: bool = False) -> Call:
    return Call(
        arrived_s=at_s,
        answered_s=at_s + 0.01,
        service=service,
        operation=operation,
        status=200,
        units=1,
        late_s=0.0,
        filled=filled,
    )


def observed(**changes: Any) -> Observed:
    """Two tasks, one after another, done without fault."""
    whole: dict[str, Any] = {
        "scenario": SCENARIO,
        "tasks": TASKS,
        "table_key": "task_id",
        "spawned_s": 0.0,
        "cpu_s": 0.5,
        "peak_rss_bytes": 50_000_000,
        "load_before": 0.1,
        "watched": Watched(cpu_at_first_message_s=0.3),
        "idle_stop": Stopped(seconds=0.2, was_killed=False),
        "left": 0,
        "in_flight": 0,
        "calls": [call(1.0, "sqs", "ReceiveMessage", filled=True), call(9.0, "sqs", "ReceiveMessage")],
        "images": [Image(stored_s=2.0 + n, path=f"/b/{n}.png", token=task.token) for n, task in enumerate(TASKS)],
        "uses": [
            Use(start_s=1.0, end_s=2.0, kind="render", token=TASKS[0].token),
            Use(start_s=2.5, end_s=3.0, kind="render", token=TASKS[1].token),
        ],
        "refused_by_engine": 0,
        "items": [{"task_id": {"S": task.task_id}, "status": {"S": "completed"}} for task in TASKS],
        "dead_letters": [],
        "set_aside": [],
    }
    return Observed(**whole | changes)


def test_duty_is_rendering_between_the_first_and_the_last_use_of_the_gpu() -> None:
    result = figures.figures(observed())

    assert result["gpu_duty"] == pytest.approx(0.75)
    assert result["idle_ms_median"] == pytest.approx(500)
    assert result["tasks_per_s"] == pytest.approx(1.0)  # two tasks, from 1.0 to the last image at 3.0
    assert result["cpu_ms_per_task"] == pytest.approx(100)
    assert result["calls_per_task"] == 0.5  # the poll after the end belongs to no task
    assert not figures.has_failed(result)


def test_a_switch_is_gpu_time_that_does_not_count_as_duty() -> None:
    uses = [Use(start_s=0.0, end_s=2.0, kind="switch"), Use(start_s=2.0, end_s=4.0, kind="render", token="x")]
    result = figures.figures(observed(uses=uses))

    assert (result["gpu_duty"], result["switches"], result["idle_ms_median"]) == (0.5, 1, 0.0)


def test_an_image_stored_twice_is_a_failure() -> None:
    twice = [Image(stored_s=2.0, path=f"/b/{n}.png", token=TASKS[n // 2].token) for n in range(3)]
    result = figures.figures(observed(images=twice))

    assert result["duplicate_images"] == 1
    assert figures.has_failed(result)


def test_an_image_without_a_token_is_traced_by_its_key() -> None:
    images = [Image(stored_s=2.0, path=f"/b/out/{task.task_id}-1.png", token=None) for task in TASKS]

    assert figures.figures(observed(images=images))["done"] == 2


@pytest.mark.parametrize(("kills", "fails"), [(0, True), (1, False)])
def test_rendering_twice_is_excused_by_a_kill_only(kills: int, *, fails: bool) -> None:
    uses = [Use(start_s=n, end_s=n + 1.0, kind="render", token=TASKS[n // 2].token) for n in range(3)]
    result = figures.figures(observed(uses=uses, watched=Watched(kills=kills)))

    assert result["duplicate_generations"] == 1
    assert figures.has_failed(result) is fails


def test_an_interrupted_render_is_no_duplicate() -> None:
    kinds = ("interrupted", "render", "render")
    tokens = (TASKS[0].token, TASKS[0].token, TASKS[1].token)
    uses = [Use(start_s=n, end_s=n + 1.0, kind=kinds[n], token=tokens[n]) for n in range(3)]
    result = figures.figures(observed(uses=uses))

    assert (result["duplicate_generations"], result["interrupted"]) == (0, 1)


@pytest.mark.parametrize("format_name", ["own", "eks"])
def test_every_bad_message_is_looked_for_and_a_vanished_one_is_a_failure(format_name: str) -> None:
    scenario = Scenario(name="bad", about="", tasks=8, render_s=1.0, bad_share=1.0)
    tasks = make_tasks(scenario, "0f")
    by_kind = {task.bad: task for task in tasks}
    dead = [
        FORMATS[format_name].write(task).body for kind, task in by_kind.items() if kind not in {"engine-422", "huge"}
    ]
    items = [{"task_id": {"S": by_kind["engine-422"].task_id}, "status": {"S": "failed"}}]
    result = figures.figures(
        observed(scenario=scenario, tasks=tasks, images=[], uses=[], items=items, dead_letters=dead)
    )

    assert set(result["bad_fates"]) == set(BAD_KINDS)
    assert result["bad_fates"]["engine-422"] == {"recorded as failed": 1}
    assert result["bad_fates"]["not-json"] == {"dead-lettered": 1}
    assert result["bad_fates"]["huge"] == {"nowhere": 1}
    assert result["unaccounted"] == 1
    assert figures.has_failed(result)


def test_repeats_are_merged_into_medians_and_faults_are_summed() -> None:
    runs = [figures.figures(observed()) | {"gpu_duty": duty, "lost": 1} for duty in (0.2, 0.9, 0.8)]
    row = figures.merge(runs)

    assert (row["gpu_duty"], row["lost"], row["runs"], row["tasks"]) == (0.8, 3, 3, 2)
    assert "0.8000" in report([row | {"consumer": "mine"}])


def test_the_ideal_groups_checkpoints_and_has_one_loaded_already() -> None:
    scenario = SCENARIOS["mixed"]

    assert figures.ideal_tasks_per_s(make_tasks(scenario, "0f"), scenario) == pytest.approx(60 / (60 * 0.25 + 2 * 2.0))
    assert figures.ideal_tasks_per_s(TASKS, SCENARIOS["throughput"]) is None


def test_tasks_are_the_same_in_every_run_but_for_their_tokens() -> None:
    first, second = (make_tasks(SCENARIOS["mixed"], run) for run in ("0a", "0b"))

    assert [(t.task_id, t.checkpoint) for t in first] == [(t.task_id, t.checkpoint) for t in second]
    assert {t.checkpoint for t in first} == {checkpoint.title for checkpoint in CHECKPOINTS}
    assert not {t.token for t in first} & {t.token for t in second}


@pytest.mark.parametrize(
    ("service", "operation", "units", "expected"),
    [
        ("sqs", "ReceiveMessage", 2, 0.80),
        ("dynamodb", "UpdateItem", 1, 1.25),  # an item of 1.5 KB is written for two units
        ("dynamodb", "GetItem", 0.5, 0.0625),
        ("dynamodb", "DescribeTable", 1, 0.0),
        ("s3", "PutObject", 1, 5.0),
        ("s3", "HeadObject", 1, 0.4),
    ],
)
def test_prices_follow_operation_and_size(service: str, operation: str, units: float, expected: float) -> None:
    assert usd_per_million(service, operation, units, write_units=2, read_units=1) == pytest.approx(expected)


def test_items_are_weighed_as_dynamodb_bills_them() -> None:
    item = {"id": {"S": "12345678"}, "n": {"N": "1234"}, "ok": {"BOOL": True}, "m": {"M": {"a": {"S": "xy"}}}}

    assert item_bytes(item) == (2 + 8) + (1 + 3) + (2 + 1) + (1 + 3 + 1 + 1 + 2)


def request(method: str = "POST", target: str = "/", service: str = "s3", body: bytes = b"", **headers: str) -> Request:
    signed = f"AWS4-HMAC-SHA256 Credential=AKIA/20261120/us-east-1/{service}/aws4_request, Signature=0"
    return Request(
        method=method,
        target=target,
        fields=(),
        headers={"authorization": signed} | headers,
        body=body,
        arrived_s=0.0,
    )


@pytest.mark.parametrize(
    ("method", "target", "operation"),
    [
        ("PUT", "/bucket/a/b.png", "PutObject"),
        ("HEAD", "/bucket/a.png", "HeadObject"),
        ("PUT", "/bucket/a?partNumber=1&uploadId=u", "UploadPart"),
        ("GET", "/bucket?list-type=2", "ListObjects"),
        ("PUT", "/bucket", "PutBucket"),
    ],
)
def test_s3_operations_are_read_from_method_and_path(method: str, target: str, operation: str) -> None:
    assert identify(request(method, target)) == ("s3", operation)


def test_other_operations_are_named_by_the_request() -> None:
    json_call = request(service="dynamodb", **{"x-amz-target": "DynamoDB_20120810.GetItem"})
    query_call = request(service="sqs", body=b"Action=SendMessage&Version=2012-11-05")

    assert identify(json_call) == ("dynamodb", "GetItem")
    assert identify(query_call) == ("sqs", "SendMessage")


def test_units_count_what_is_billed() -> None:
    batch = json.dumps({"RequestItems": {"t": [{}, {}, {}]}}).encode()

    assert billed_units("sqs", "SendMessage", b"x" * 65537) == 2
    assert billed_units("dynamodb", "GetItem", b"{}") == 0.5
    assert billed_units("dynamodb", "BatchWriteItem", batch) == 3
    assert billed_units("dynamodb", "TransactWriteItems", b'{"TransactItems": [1, 2]}') == 4


def test_pictures_can_be_read_and_carry_their_text() -> None:
    painter = Painter()
    data = base64.b64decode(b"".join(painter.picture(512, 512, "a boat, bench-0f-1")))

    with Picture.open(io.BytesIO(data)) as picture:
        picture.load()
        assert picture.size == (512, 512)
        assert picture.info["parameters"].strip() == "a boat, bench-0f-1"
    assert 300_000 < len(data) < 500_000


def test_consumers_are_known_named_or_plain_commands() -> None:
    assert parse_consumer("reference").name == "reference"
    assert parse_consumer("mine=/opt/mine --queue {queue_url}").command == "/opt/mine --queue {queue_url}"
    assert parse_consumer("/opt/mine --level=3").command == "/opt/mine --level=3"


def test_help_shows_examples_and_every_scenario() -> None:
    text = build_parser().format_help()

    assert "examples:" in text
    assert all(name in text for name in SCENARIOS)
