"""``sd-scheduler fleet`` and ``autoscale``, and the Lambda handler, over emulated AWS and a local fleet of sleepers."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from aws_servers import Cloud
from botocore.client import BaseClient
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from scheduler import lambda_handlers
from scheduler.autoscale import protocol
from scheduler.autoscale.leader import Terms
from scheduler.autoscale.protocol import Report, State
from scheduler.autoscale.state_table import DynamoFleetState
from scheduler.aws.addresses import Account
from scheduler.aws.make_state_table import make_state_table
from scheduler.aws.making import Making
from scheduler.aws.operator_clients import build as operator_clients
from scheduler.cli import fleet as fleet_commands
from scheduler.cli.autoscale import keep_leading
from scheduler.cli.root import cli
from scheduler.config import load
from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import Unavailable
from scheduler.fleet import capacity_keeper, make_leader, open_fleet
from scheduler.local.fleet_demo import Keeper, Verdict

MEMBER = "local-0000"


class Fleet:
    """A fleet of processes that do nothing, its table and its queue; `run` is the command line."""

    def __init__(self, cloud: Cloud, folder: Path, address: str, **keys: object) -> None:
        self.cloud = cloud
        self.queue = cloud.queue()
        table = cloud.table()
        self.config = folder / "conf.ini"
        lines = [f"{key} = {value}" for key, value in ({"policy": "threshold", "cooldown_s": 0} | keys).items()]
        self.config.write_text(
            f"[aws]\naws_region = us-east-1\nsqs_queue_url = {self.queue.url}\ndynamodb_table = {table}\n"
            f"s3_bucket = pictures-1\n[autoscaling]\nenabled = true\nfleet = local\nfleet_id = {address}\n"
            "scale_out_threshold = 0\n" + "\n".join(lines) + "\n"
        )
        making = Making(
            clients=operator_clients("us-east-1"), account=Account(number="123456789012", region="us-east-1")
        )
        assert [made.state for made in make_state_table(making, f"{table}-fleet")] == ["created", "added"]
        self.state = DynamoFleetState(cloud.clients.dynamodb, f"{table}-fleet", f"local/{address}", clock=SystemClock())

    def run(self, *words: str, code: int = 0) -> Result:
        done = CliRunner().invoke(cli, [*words, "-c", str(self.config)])
        assert done.exit_code == code, (done.output, done.exception)
        return done

    def told(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)

    def send(self, count: int = 1) -> None:
        for number in range(count):
            self.cloud.clients.sqs.send_message(QueueUrl=self.queue.url, MessageBody=f"task {number}")

    def enters(self, instance_id: str = MEMBER, **report: Any) -> protocol.Worker:
        change = protocol.register(None, instance_id=instance_id, boot_id="boot-1", now_s=time.time())
        assert change is not None
        worker = self.state.change(change).worker
        assert worker is not None
        beaten = self.state.change(protocol.beat(worker, Report(ready_s=time.time(), **report), now_s=time.time()))
        assert beaten.worker is not None
        return beaten.worker


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "scheduler.local.fleet_service", f"--folder={tmp_path / 'workers'}"]
    with subprocess.Popen([*command, "--", "sleep", "600"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline().decode().split()[-1]
        process.terminate()


@pytest.fixture
def fleet(moto: Cloud, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    for name, value in moto.environ.items():
        monkeypatch.setenv(name, value)
    return Fleet(moto, tmp_path, address)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(fleet):
    fleet.send(3)
    done = fleet.run("autoscale", "--once", "--dry-run")
    assert "target: 1" in done.stdout
    assert fleet.state.book() is None
    assert fleet.told("fleet", "show")["target"] == 0


def test_a_dry_run_writes_nothing_to_any_table_and_says_what_it_would_publish(fleet):
    def held() -> list[Any]:
        tables = fleet.cloud.clients.dynamodb.list_tables()["TableNames"]
        return [fleet.cloud.clients.dynamodb.scan(TableName=name)["Items"] for name in tables]

    assert fleet.told("autoscale", "--once", "--dry-run")["would_publish"] == ["all of it, as the first"]
    assert fleet.state.published() is None
    fleet.run("autoscale", "--once")
    fleet.enters()
    fleet.send(3)
    before = held()
    fleet.config.write_text(fleet.config.read_text() + "max_capacity = 1\n")
    os.utime(fleet.config, (time.time() + 60, time.time() + 60))
    done = fleet.run("autoscale", "--once", "--dry-run")
    assert "would publish: max_capacity: 4 -> 1" in done.stdout
    assert held() == before


def test_once_raises_the_target_and_tells_why(fleet):
    fleet.send(3)
    told = fleet.told("autoscale", "--once")
    assert (told["leads"], told["wanted"], told["target"]) == (True, 1, 1)
    shown = fleet.told("fleet", "show")
    assert (shown["target"], shown["wanted"], shown["visible"], shown["policy"]) == (1, 1, 3, "threshold")
    assert shown["leader"].startswith("autoscale@")
    assert [worker["state"] for worker in shown["workers"]] == ["booting"]
    why = fleet.run("fleet", "why").stdout
    assert "1 wanted (threshold)" in why
    assert "3 visible" in why
    assert "because" in why


def test_once_leaves_a_living_leader_alone(fleet):
    fleet.run("autoscale", "--once")
    told = fleet.told("autoscale", "--once")
    assert told["leads"] is False
    assert re.match(r"autoscale@\S+ decided \d+ s ago and leads still", fleet.run("autoscale", "--once").stdout)


def test_a_job_of_each_minute_leads_each_minute(fleet):
    fleet.run("autoscale", "--once")
    book = fleet.state.book()
    assert fleet.state.write_book(replace(book, version=2, written_s=book.written_s - 58), seen=1)
    assert fleet.told("autoscale", "--once")["leads"] is True


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_loop_that_is_stopped_gives_the_lead_up(fleet, number, code):
    command = [Path(sys.executable).with_name("sd-scheduler"), "autoscale", "-c", str(fleet.config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"wanted 0")
        process.send_signal(number)
        assert process.wait(30) == code
    assert fleet.state.book().leader == ""


def test_why_in_json_is_one_decision_a_line_oldest_first(fleet):
    assert "nothing was decided yet" in fleet.run("fleet", "why").stdout
    parts = open_fleet(load(fleet.config, {}), host="test")
    for version in (1, 2):
        book = open_book(version)
        parts.state.keep(book)
    lines = [json.loads(line) for line in fleet.run("fleet", "why", "--json").stdout.splitlines()]
    assert [line["decision"]["capacity"] for line in lines] == [1, 2]
    assert set(lines[0]) >= {"at_s", "snapshot", "decision"}


def open_book(version: int) -> Any:
    from scheduler.autoscale.book import Book

    return Book(version=version, written_s=1000.0 * version, capacity=version)


def test_a_worker_is_asked_to_go(fleet):
    fleet.enters(running=1)
    told = fleet.told("fleet", "drain", MEMBER, "--replace")
    assert told["state"] == "drain"
    worker = fleet.state.worker(MEMBER)
    assert worker is not None
    assert (worker.state, worker.replace, worker.drain_no) == (State.DRAIN, True, 1)
    assert worker.why.startswith("asked for by ")
    assert fleet.told("fleet", "drain", MEMBER)["state"] == "drain", "asked again it changes nothing"


def test_one_who_is_no_worker_cannot_be_asked(fleet):
    done = fleet.run("fleet", "drain", "i-nobody", code=1)
    assert "i-nobody is no worker of this fleet" in done.output


def test_one_that_boots_cannot_be_asked_yet_and_is_no_stranger(fleet):
    fleet.send(3)
    fleet.run("autoscale", "--once")
    told = fleet.told("fleet", "show")
    while not told["workers"]:
        told = fleet.told("fleet", "show")
    booting = told["workers"][0]["instance_id"]
    assert "has not reported yet" in fleet.run("fleet", "drain", booting, code=1).output


def test_a_pause_holds_the_fleet_until_it_is_resumed(fleet):
    fleet.send(3)
    fleet.run("fleet", "pause", "--for", "30m", "--why", "a test")
    assert "paused" in fleet.told("autoscale", "--once")["hold"]
    shown = fleet.told("fleet", "show")
    assert shown["target"] == 0
    assert 1700 < shown["paused_for_s"] <= 1800
    assert shown["paused_why"] == "a test"
    lines = fleet.run("fleet", "show").stdout.splitlines()
    told = [line for line in lines if "paused" in line or "held" in line]
    assert len(told) == 1
    assert re.fullmatch(r"  paused by \S+ for (29|30) min more: a test", told[0])
    assert re.search(r"held: paused by \S+ until .* UTC: a test", fleet.run("fleet", "why").stdout)
    fleet.run("fleet", "resume")
    shown = fleet.told("fleet", "show")
    assert (shown["paused_for_s"], shown["paused_by"], shown["hold"]) == (0, "", "")


def test_a_resume_says_what_it_ended_and_who_goes_on(fleet):
    assert fleet.told("fleet", "resume") == {"was_paused": False, "is_led": False}
    assert "no pause was on" in fleet.run("fleet", "resume").stdout
    assert fleet.told("fleet", "pause", "--why", "a test")["why"] == "a test"
    fleet.run("autoscale", "--once")
    assert fleet.told("fleet", "resume") == {"was_paused": True, "is_led": True}


@pytest.mark.parametrize("span", ["0s", "0d"])
def test_a_pause_of_no_time_is_wrong_use(fleet, span):
    assert "longer than nothing" in fleet.run("fleet", "pause", "--for", span, code=2).output
    assert fleet.state.pause() is None


@pytest.mark.parametrize("span", ["soon", "5", "1w"])
def test_a_span_that_is_none_is_wrong_use(fleet, span):
    assert "write such as 90s, 30m, 1h or 2d" in fleet.run("fleet", "pause", "--for", span, code=2).output


def test_show_in_a_pipe_is_plain_lines(fleet):
    fleet.enters(running=1, waiting=2, finished=7)
    lines = fleet.run("fleet", "show").stdout.splitlines()
    assert lines[0].startswith("local http://127.0.0.1:")
    assert f"  {MEMBER}  active  running 1  waiting 2  finished 7  idle 0 s" in lines


def test_one_odd_record_hides_nobody_from_show_and_stops_no_tick(fleet):
    fleet.enters("local-1111")
    half = protocol.Change(instance_id=MEMBER, sets={"instance_id": MEMBER, "state": State.ACTIVE}, expects_none=True)
    with pytest.raises(Unavailable):
        fleet.state.change(half)
    fleet.send(3)
    assert fleet.told("autoscale", "--once")["wanted"] == 1
    shown = {worker["instance_id"]: worker for worker in fleet.told("fleet", "show")["workers"]}
    assert (shown[MEMBER]["state"], shown["local-1111"]["state"]) == ("unreadable", "active")
    assert "no beat, boot_id" in shown[MEMBER]["note"]
    assert "delete it" in fleet.run("fleet", "drain", MEMBER, code=1).output


def test_the_demo_fails_when_its_leader_died_and_says_of_what(fleet):
    def terms() -> Terms:
        raise LookupError("odd")

    parts = open_fleet(load(fleet.config, {}), host="demo")
    keeper = Keeper(SimpleNamespace(**{name: getattr(parts, name) for name in parts.__slots__} | {"terms": terms}))
    keeper.start()
    keeper.stop()
    assert keeper.died == "LookupError: odd"
    verdict = Verdict(completed=1, sent=1, runs=1, peak=2, members_left=0, lasted_s=1.0, leader_died=keeper.died)
    assert not verdict.is_as_meant
    assert replace(verdict, leader_died="").is_as_meant


def test_each_role_is_allowed_the_calls_that_its_commands_make(fleet, monkeypatch):
    made: set[str] = set()
    call = BaseClient._make_api_call

    def noted(client: Any, operation: str, arguments: Any) -> Any:
        made.add(f"{client.meta.service_model.service_name}:{operation}")
        return call(client, operation, arguments)

    def used() -> set[str]:
        found = made & {name for name in made if name.startswith(("sqs:", "dynamodb:"))}
        made.clear()
        return found

    def allowed(role: str) -> set[str]:
        document = json.loads(fleet.run("setup", "--print-policy", role).stdout)
        return {action for statement in document["Statement"] for action in statement["Action"]}

    allowed_to = {role: allowed(role) for role in ("autoscale", "operator")}
    monkeypatch.setattr(BaseClient, "_make_api_call", noted)
    fleet.run("autoscale", "--once")
    used_by = {"autoscale": used()}
    fleet.enters()
    made.clear()
    for words in (["show"], ["why"], ["pause"], ["resume"], ["drain", MEMBER]):
        fleet.run("fleet", *words)
    used_by["operator"] = used()
    assert {role: names | {"sqs:GetQueueUrl"} for role, names in used_by.items()} == allowed_to


def test_a_fleet_that_is_not_there_is_a_failure(fleet, address):
    text = fleet.config.read_text()
    fleet.config.write_text(text.replace("fleet = local", "fleet = asg").replace(address, "nobody"))
    done = fleet.run("fleet", "show", code=1)
    assert ": ended, " in done.stdout.splitlines()[0]


def test_an_edit_is_judged_within_a_tick_though_another_leads(fleet):
    fleet.run("autoscale", "--once")
    parts = open_fleet(load(fleet.config, {}), host="standby")
    fleet.config.write_text(fleet.config.read_text() + "max_capacity = lots\n")
    signals: SimpleQueue[int] = SimpleQueue()
    signals.put(signal.SIGTERM)
    with capture_logs() as logs:
        keep_leading(parts, make_leader(parts, name="standby"), signals, as_json=True)
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["autoscaling_refused"]
    fleet.config.write_text(fleet.config.read_text().replace("lots", "2"))
    os.utime(fleet.config, (time.time() + 60, time.time() + 60))
    assert fleet.told("autoscale", "--once")["leads"] is False
    assert fleet.state.published().values["max_capacity"] == "2", "a newer file is published whoever leads"


def test_no_log_line_of_a_command_shows_a_secret(fleet, monkeypatch):
    secret = base64.b64encode(b"what webhooks are signed with by us").decode()
    with fleet.config.open("a") as config:
        config.write(f"[notify]\nwebhook_secret = {secret}\n")

    def open_fleet(*_: object, **__: object) -> None:
        structlog.get_logger().warning("said", text=f"signed with {secret}")
        raise Unavailable("no more is needed")

    monkeypatch.setattr(fleet_commands, "open_fleet", open_fleet)
    done = fleet.run("fleet", "show", code=1)
    assert "signed with ***" in done.stderr
    assert secret not in done.output


def test_a_task_that_is_submitted_brings_a_fleet_of_none_its_first_worker(fleet):
    done = fleet.run("task", "submit", "--prompt", "a fox", "--id", "fox")
    assert done.stdout == "fox\n"
    assert "warning" not in done.stderr
    assert fleet.told("fleet", "show")["target"] == 1


@pytest.mark.parametrize("how", [[], ["--json"]], ids=["for people", "as JSON"])
def test_a_fleet_that_cannot_be_looked_at_costs_a_submitted_task_no_more_than_a_warning(fleet, how):
    text = fleet.config.read_text()
    fleet.config.write_text(text.replace("[autoscaling]", "[autoscaling]\nstate_table = of-nobody"))
    done = fleet.run("task", "submit", "--prompt", "a fox", "--id", "fox", *how)
    warned = json.loads(done.stdout)["warnings"][0] if how else done.stderr
    assert "the fleet could not be looked at" in warned
    messages = fleet.cloud.clients.sqs.receive_message(QueueUrl=fleet.queue.url)["Messages"]
    assert [json.loads(message["Body"])["task_id"] for message in messages] == ["fox"]


def test_without_a_fleet_it_says_so(fleet):
    text = fleet.config.read_text().replace("enabled = true", "enabled = false")
    fleet.config.write_text("\n".join(line for line in text.splitlines() if not line.startswith("fleet_id")))
    assert "[autoscaling] fleet_id is missing" in fleet.run("fleet", "show", code=2).output


def test_the_lambda_handler_does_what_once_does(fleet, monkeypatch):
    monkeypatch.setenv("SCHEDULER_CONFIG", str(fleet.config))
    fleet.send(2)
    answer = lambda_handlers.autoscale({}, SimpleNamespace(function_name="keep-fleet"))
    assert (answer["leads"], answer["leader"], answer["target"]) == (True, "lambda:keep-fleet", 1)
    json.dumps(answer)
    assert fleet.told("fleet", "show")["target"] == 1


def test_the_lambda_is_configured_by_variables_alone(fleet, monkeypatch, tmp_path):
    settings = load(fleet.config, {})
    given = {
        "AWS_AWS_REGION": settings.aws.aws_region,
        "AWS_SQS_QUEUE_URL": settings.aws.sqs_queue_url[0],
        "AWS_DYNAMODB_TABLE": settings.aws.dynamodb_table,
        "AWS_S3_BUCKET": settings.aws.s3_bucket,
        "AUTOSCALING_FLEET": "local",
        "AUTOSCALING_FLEET_ID": settings.autoscaling.fleet_id,
        "AUTOSCALING_MAX_CAPACITY": "3",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"SCHEDULER_{name}", value)
    (tmp_path / "function").mkdir()
    monkeypatch.chdir(tmp_path / "function")
    assert lambda_handlers.autoscale({}, object())["leads"] is True
    assert fleet.state.published().values["max_capacity"] == "3"


def test_a_sender_makes_the_fleet_grow_from_nothing_though_the_queue_shows_nothing_yet(fleet):
    keeper = capacity_keeper(load(fleet.config, {}), host="front-door")
    outcome = keeper.ensure_capacity(sent=4)
    assert outcome is not None
    assert outcome.leads
    assert fleet.told("fleet", "show")["target"] == 1
    assert keeper.ensure_capacity() is None, "it was looked at just now"
