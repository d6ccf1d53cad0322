"""Settings from conf.ini and the environment: precedence, faults all at once,
secrets never shown, a template that loads.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler import config, config_pages
from scheduler.cli.root import cli
from scheduler.config_sections import SECTIONS
from scheduler.config_syntax import EngineLine
from scheduler.domain.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
MINIMAL = "[aws]\naws_region = us-east-1\nsqs_queue_url = tasks\ndynamodb_table = records\ns3_bucket = pictures\n"
FROM_ENVIRONMENT = {
    "SCHEDULER_AWS_AWS_REGION": "eu-west-1",
    "SCHEDULER_AWS_SQS_QUEUE_URL": "first,second",
    "SCHEDULER_AWS_DYNAMODB_TABLE": "records",
    "SCHEDULER_AWS_S3_BUCKET": "pictures",
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty current directory, so that files are named as short as people name them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text, environ=None):
    Path("conf.ini").write_text(text, encoding="utf-8")
    return config.load(None, environ or {})


def problems(text, environ=None):
    with pytest.raises(ConfigError) as caught:
        load(text, environ)
    return caught.value.problems


def test_four_keys_are_enough(home):
    loaded = load(MINIMAL)
    assert loaded.aws.aws_region == "us-east-1"
    assert loaded.aws.sqs_queue_url == ("tasks",)
    assert loaded.aws.cloudfront_domain == ""
    assert loaded.sd_api.sd_api_base_url == ("http://127.0.0.1:7860",)
    assert loaded.sd_api.api_auth.get_secret_value() == ""
    assert loaded.sd_api.restart_command == ()
    assert loaded.scheduler.model_dump() == {
        "poll_interval": 10,
        "max_tasks_per_poll": 10,
        "task_deadline_s": "600",
        "max_runs": 3,
        "stop_grace_s": 90,
        "memory_mb": 256,
        "default_prefix": "tasks",
        "record_ttl_days": 90,
        "max_pixels": 33554432,
        "health_host": "127.0.0.1",
        "health_port": 8080,
    }
    assert loaded.scheduler.task_deadline_s == 600
    assert loaded.file == Path("conf.ini")


def test_settings_cannot_be_changed(home):
    loaded = load(MINIMAL)
    with pytest.raises(AttributeError):
        loaded.aws = None
    with pytest.raises(ValueError, match="frozen"):
        loaded.scheduler.max_runs = 4
    with pytest.raises(TypeError):
        loaded.sources["aws", "aws_region"] = "x"


def test_values_are_read_into_their_types(home):
    loaded = load(
        "\ufeff"
        + MINIMAL.replace("tasks", "urgent, tasks").replace("\n", "\r\n")
        + "cloudfront_domain = https://d1.cloudfront.net/\n"
        "[sd_api]\nsd_api_base_url = http://127.0.0.1:7860/,\n  http://127.0.0.1:7861\napi_auth = ann:p%w;#\n"
        "restart_command = supervisorctl restart 'sd webui'\n"
        "[scheduler]\ntask_deadline_s = 0.5\nhealth_port = 0\n"
    )
    assert loaded.aws.sqs_queue_url == ("urgent", "tasks")
    assert loaded.aws.cloudfront_domain == "d1.cloudfront.net"
    assert loaded.sd_api.sd_api_base_url == ("http://127.0.0.1:7860", "http://127.0.0.1:7861")
    assert loaded.sd_api.api_auth.get_secret_value() == "ann:p%w;#"
    assert loaded.sd_api.restart_command == ("supervisorctl", "restart", "sd webui")
    assert loaded.scheduler.task_deadline_s == 0.5
    assert loaded.scheduler.health_port == 0


def test_the_predecessors_names_are_read(home):
    loaded = load(
        "[aws]\nregion = us-east-1\nqueue_url = q\ndynamodb_table_name = tab\nbucket_name = buc\ncloudfront = d.example\n"
    )
    assert (loaded.aws.aws_region, loaded.aws.sqs_queue_url, loaded.aws.dynamodb_table) == ("us-east-1", ("q",), "tab")
    assert (loaded.aws.s3_bucket, loaded.aws.cloudfront_domain) == ("buc", "d.example")
    assert load(MINIMAL.replace("dynamodb_table", "table_name")).aws.dynamodb_table == "records"
    assert load(MINIMAL, {"SCHEDULER_AWS_BUCKET_NAME": "other"}).aws.s3_bucket == "other"


class TestWhichFile:
    def test_the_given_path_goes_before_the_variable_and_that_before_the_current_directory(self, home):
        for name, runs in (("conf.ini", 1), ("variable.ini", 2), ("given.ini", 3)):
            Path(name).write_text(f"{MINIMAL}[scheduler]\nmax_runs = {runs}\n")
        environ = {"SCHEDULER_CONFIG": "variable.ini"}
        assert config.load(Path("given.ini"), environ).scheduler.max_runs == 3
        assert config.load(None, environ).scheduler.max_runs == 2
        assert config.load(None, {}).scheduler.max_runs == 1

    @pytest.mark.parametrize(
        ("path", "environ"), [(None, {}), (Path("x.ini"), {}), (None, {"SCHEDULER_CONFIG": "x.ini"})]
    )
    def test_a_missing_file_is_one_problem_that_says_what_to_do(self, home, path, environ):
        with pytest.raises(ConfigError) as caught:
            config.load(path, environ)
        (problem,) = caught.value.problems
        assert problem.startswith("x.ini: no such file" if path or environ else "conf.ini: no such file")
        assert "cp conf.template.ini conf.ini" in problem

    def test_no_file_is_needed_when_the_environment_gives_what_is_required(self, home):
        loaded = config.load(None, FROM_ENVIRONMENT)
        assert loaded.file is None
        assert loaded.aws.sqs_queue_url == ("first", "second")

    def test_a_missing_file_does_not_hide_what_is_wrong_in_the_environment(self, home):
        with pytest.raises(ConfigError) as caught:
            config.load(None, {"SCHEDULER_AWS_AWS_REGION": "mars"})
        assert len(caught.value.problems) == 2
        with pytest.raises(ConfigError) as caught:
            config.load(None, FROM_ENVIRONMENT | {"SCHEDULER_AWS_AWS_REGION": "mars"})
        assert caught.value.problems == [
            "SCHEDULER_AWS_AWS_REGION: [aws] aws_region = 'mars': expected an AWS region such as us-east-1"
        ]

    def test_what_cannot_be_read_is_a_problem(self, home):
        Path("conf.ini").mkdir()
        with pytest.raises(ConfigError, match=r"conf\.ini: cannot be read: Is a directory"):
            config.load(None, {})
        Path("latin.ini").write_bytes(b"[aws]\n# caf\xe9\n")
        with pytest.raises(ConfigError, match=r"latin\.ini: byte 11 is not UTF-8"):
            config.load(Path("latin.ini"), {})


class TestEnvironment:
    def test_it_overrides_the_file_whatever_the_case_of_its_name(self, home):
        environ = {"SCHEDULER_SCHEDULER_POLL_INTERVAL": "7", "Scheduler_Sd_Api_Api_Auth": "ann:x", "POLL_INTERVAL": "9"}
        loaded = load(MINIMAL + "[scheduler]\npoll_interval = wrong, but not in effect\n", environ)
        assert loaded.scheduler.poll_interval == 7
        assert loaded.sd_api.api_auth.get_secret_value() == "ann:x"

    def test_it_is_taken_as_it_is(self, home):
        assert (
            load(MINIMAL, {"SCHEDULER_SD_API_API_AUTH": "a:${HOME}$${"}).sd_api.api_auth.get_secret_value()
            == "a:${HOME}$${"
        )

    @pytest.mark.parametrize(
        ("variable", "nearest"),
        [
            ("SCHEDULER_POLL_INTERVAL", "SCHEDULER_SCHEDULER_POLL_INTERVAL"),
            ("SCHEDULER_AWS_S3_BUKET", "SCHEDULER_AWS_S3_BUCKET"),
            ("SCHEDULER_CONFIG_FILE", "SCHEDULER_CONFIG"),
            ("scheduler_config", "SCHEDULER_CONFIG"),
        ],
    )
    def test_a_name_that_fits_no_key_is_a_problem_with_the_nearest(self, home, variable, nearest):
        assert problems(MINIMAL, {variable: "1"}) == [f"{variable}: is no setting; did you mean {nearest}?"]

    def test_two_names_of_one_key_are_a_problem(self, home):
        environ = {"SCHEDULER_AWS_REGION": "us-east-1", "SCHEDULER_AWS_AWS_REGION": "us-east-1"}
        assert problems(MINIMAL, environ) == [
            "SCHEDULER_AWS_REGION: says the same as SCHEDULER_AWS_AWS_REGION; keep one"
        ]

    def test_each_variable_stands_for_one_key(self):
        names = [
            f"{section}_{key}".upper()
            for section, model in SECTIONS.items()
            for key in (*model.model_fields, *model.also)
        ]
        assert len(set(names)) == len(names)
        assert "CONFIG" not in names

    def test_variables_expand_within_the_file(self, home):
        loaded = load(MINIMAL + "[sd_api]\napi_auth = ann:${PASSWORD}\n", {"PASSWORD": "x y"})
        assert loaded.sd_api.api_auth.get_secret_value() == "ann:x y"


EVERYTHING_WRONG = """\
early = 1
[aws]
region = us-east-1
aws_region = us-east-1
sqs_queue_url = https://sqs.us-east-1.amazonaws.com/1/tasks.fifo
dynamodb_table = ${TABLE}
s3_bukcet = pictures
poll_interval = 3
[sd-api]
sd_api_base_url = http://127.0.0.1
[sd_api]
sd_api_base_url = http://ann:secret@127.0.0.1:7860, http://127.0.0.1:7861
  api_auth = ann:secret
api_auth = secret
api_auth = secret
restart_command = restart "
[scheduler]
poll_interval = 21 # seconds
task_deadline_s = nan
 max_runs = 3
max_tasks_per_poll = ten
record_ttl_days = 28
health_port = 65536
secret
Memory_MB = 256
zzz = 1
[aws]
cloudfront_domain = https://d.example/path
"""
ALL_TOLD = """\
conf.ini:1: a section header, such as [aws], must come before the first key
conf.ini:4: [aws] aws_region says the same as region in conf.ini:3; keep one
conf.ini:5: [aws] sqs_queue_url = 'https://sqs.us-east-1.amazonaws.com/1/tasks.fifo': FIFO queues are not supported: name a standard queue
conf.ini:6: [aws] dynamodb_table = '${TABLE}': environment variable TABLE is not set; set it, or write $${ for the characters ${
conf.ini:7: [aws] s3_bukcet is no key; did you mean s3_bucket?
conf.ini:8: [aws] poll_interval is no key; it belongs into [scheduler]
conf.ini:9: [sd-api] is no section; did you mean [sd_api]?
conf.ini:12: [sd_api] sd_api_base_url: the next line is indented, which makes it part of this value; remove its indentation
conf.ini:12: [sd_api] sd_api_base_url = 'http://***@127.0.0.1:7860, http://127.0.0.1:7861': item 1: expected an address such as http://127.0.0.1:7860, without query, and without user and password
conf.ini:14: [sd_api] api_auth = ***: expected user:password
conf.ini:15: [sd_api] api_auth is given a second time; keep one of the two
conf.ini:16: [sd_api] restart_command = 'restart "': expected a command line: no closing quotation
conf.ini:18: [scheduler] poll_interval = '21 # seconds': expected a whole number from 1 to 20 (a comment needs a line of its own)
conf.ini:19: [scheduler] task_deadline_s: the next line is indented, which makes it part of this value; remove its indentation
conf.ini:19: [scheduler] task_deadline_s = 'nan': expected a number above 0 to 39600
conf.ini:21: [scheduler] max_tasks_per_poll = 'ten': expected a whole number from 1 to 10
conf.ini:22: [scheduler] record_ttl_days = '28': expected a whole number from 29: a record must outlive every copy of its message, which SQS keeps up to 14 days in the queue and 14 more in the dead-letter queue; a copy that outlived it would be rendered again
conf.ini:23: [scheduler] health_port = '65536': expected a whole number from 0 to 65535
conf.ini:24: expected [section], key = value, or a comment that begins with # or ;
conf.ini:25: [scheduler] Memory_MB is no key; did you mean memory_mb?
conf.ini:26: [scheduler] zzz is no key; known are poll_interval, max_tasks_per_poll, task_deadline_s, max_runs, stop_grace_s, memory_mb, default_prefix, record_ttl_days, max_pixels, health_host, health_port
conf.ini:27: [aws] begins a second time; put its keys where it begins first
conf.ini:28: [aws] cloudfront_domain = 'https://d.example/path': expected a domain without a path, such as d111111abcdef8.cloudfront.net
SCHEDULER_SCHEDULER_HEALTH_HOTS: is no setting; did you mean SCHEDULER_SCHEDULER_HEALTH_HOST?
conf.ini: [aws] s3_bucket is missing: Bucket that the pictures are stored in. Example: s3_bucket = example-sd-pictures
SCHEDULER_SCHEDULER_STOP_GRACE_S: [scheduler] stop_grace_s = '0': expected a whole number from 1 to 3600
"""


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file(home):
    environ = {"SCHEDULER_SCHEDULER_STOP_GRACE_S": "0", "SCHEDULER_SCHEDULER_HEALTH_HOTS": "x"}
    assert problems(EVERYTHING_WRONG, environ) == ALL_TOLD.splitlines()


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("poll_interval", 1, 20),
        ("max_tasks_per_poll", 1, 10),
        ("task_deadline_s", 0.001, 39600),
        ("max_runs", 1, 100),
        ("stop_grace_s", 1, 3600),
        ("memory_mb", 16, None),
        ("record_ttl_days", 29, None),
        ("max_pixels", 4096, None),
        ("health_port", 0, 65535),
    ],
)
def test_numbers_have_their_bounds(home, key, least, most):
    for inside in (least, most if most is not None else 10**9):
        assert getattr(load(f"{MINIMAL}[scheduler]\n{key} = {inside}\n").scheduler, key) == inside
    for outside in (least - 1, *([most + 1] if most is not None else []), "", "inf", "one"):
        (problem,) = problems(f"{MINIMAL}[scheduler]\n{key} = {outside}\n")
        assert problem.startswith(f"conf.ini:7: [scheduler] {key} = '{outside}': expected a")


def test_every_key_tells_its_meaning():
    for model in SECTIONS.values():
        assert model.about
        for key, info in model.model_fields.items():
            assert len(info.description or "") > 20, key
            assert info.examples or not info.is_required(), key


def test_effective_tells_value_and_source_of_every_key(home):
    text = MINIMAL.replace("aws_region", "region") + "[sd_api]\nrestart_command = a 'b c'\napi_auth = ann:${PASSWORD}\n"
    rows = config_pages.effective(load(text, {"SCHEDULER_SCHEDULER_MAX_RUNS": "5", "PASSWORD": "x"}))
    assert len(rows) == sum(len(model.model_fields) for model in SECTIONS.values())
    for row in [
        ("aws", "aws_region", "us-east-1", "conf.ini:2", ""),
        ("aws", "sqs_queue_url", "tasks", "conf.ini:3", ""),
        ("sd_api", "restart_command", "a 'b c'", "conf.ini:7", ""),
        ("sd_api", "api_auth", "***", "conf.ini:8", ""),
        ("scheduler", "max_runs", "5", "SCHEDULER_SCHEDULER_MAX_RUNS", ""),
        ("scheduler", "task_deadline_s", "600", "default", ""),
    ]:
        assert row in rows


class TestEngines:
    """[engines], whose keys are names that the user gives."""

    def lines(self, text: str, environ: dict[str, str] | None = None) -> dict[str, EngineLine]:
        return load(f"{MINIMAL}[engines]\n{text}\n", environ or {}).engines.lines

    def test_none_is_named_unless_one_is(self, home):
        assert load(MINIMAL).engines.lines == {}

    def test_a_runtime_has_a_kind_addresses_and_a_command(self, home):
        told = "comfy = comfyui http://127.0.0.1:8188/,http://127.0.0.1:8189 supervisorctl restart 'the comfy'"
        assert self.lines(told) == {
            "comfy": EngineLine(
                "comfyui", ("http://127.0.0.1:8188", "http://127.0.0.1:8189"), ("supervisorctl", "restart", "the comfy")
            )
        }

    def test_names_keep_their_case_and_their_order(self, home):
        line = "job_api http://127.0.0.1:9000"
        assert list(self.lines(f"zeta = {line}\nComfy = {line}\ncomfy = {line}")) == ["zeta", "Comfy", "comfy"]

    def test_the_environment_names_one_too(self, home):
        found = self.lines(
            "comfy = comfyui http://127.0.0.1:1", {"SCHEDULER_ENGINES_comfy": "job_api http://127.0.0.1:2"}
        )
        assert found == {"comfy": EngineLine("job_api", ("http://127.0.0.1:2",))}

    @pytest.mark.parametrize(
        ("line", "right"),
        [
            ("comfy = http://127.0.0.1:8188", "expected KIND URL"),
            ("comfy = comfyui", "expected KIND URL"),
            ("comfy = ComfyUI http://127.0.0.1:8188", "kinds are sdwebui, comfyui, job_api"),
            ("comfy = comfyui 127.0.0.1:8188", "expected an address such as http://"),
            ("comfy = comfyui http://127.0.0.1:1,http://127.0.0.1:1", "the same as item 1"),
            ("com fy = comfyui http://127.0.0.1:8188", "is no runtime's name"),
            ("comfy = comfyui http://127.0.0.1:8188 'open", "expected a command line"),
            ("comfy = comfyui http://127.0.0.1:1, http://127.0.0.1:2", "give each engine a name of its own"),
            ("comfy = comfyui http://127.0.0.1:1 http://127.0.0.1:2 restart it", "give each engine a name of its own"),
            ("comfy = comfyui http://127.0.0.1:1 ,http://127.0.0.1:2", "give each engine a name of its own"),
            ("comfy = comfyui http://127.0.0.1:1, restart it", "give each engine a name of its own"),
            ("legacy = comfyui http://127.0.0.1:8188", "tasks that ask for legacy mean a sdwebui"),
            ("sdwebui = job_api http://127.0.0.1:8188", "tasks that ask for sdwebui mean a sdwebui"),
            ("comfyui = sdwebui http://127.0.0.1:8188", "tasks that ask for comfyui mean a comfyui"),
        ],
    )
    def test_what_is_no_engine_is_told_with_its_line(self, home, line, right):
        (problem,) = problems(f"{MINIMAL}[engines]\n{line}\n")
        assert problem.startswith("conf.ini:7: [engines] ")
        assert right in problem

    def test_a_command_may_hold_an_address_of_its_own(self, home):
        (line,) = self.lines("comfy = comfyui http://127.0.0.1:1 curl -X POST http://127.0.0.1:2/restart").values()
        assert line.restart_command == ("curl", "-X", "POST", "http://127.0.0.1:2/restart")

    def test_an_address_has_one_kind_of_engine(self, home):
        here = "http://127.0.0.1:1"
        (problem,) = problems(f"{MINIMAL}[engines]\none = comfyui {here}\ntwo = job_api http://127.0.0.1:2,{here}/\n")
        assert problem.startswith("conf.ini:8: [engines] two = ")
        assert problem.endswith(f"{here} is one's, a comfyui: an address has one kind of engine")

    def test_that_of_the_webui_counts_only_where_it_is_in_use(self, home):
        text = f"{MINIMAL}[engines]\ncomfy = comfyui http://127.0.0.1:7860\n[sd_api]\n"
        assert load(text).engines.lines
        (problem,) = problems(f"{text}sd_api_base_url = http://127.0.0.1:7860\n")
        assert "http://127.0.0.1:7860 is sdwebui's, a sdwebui" in problem

    @pytest.mark.parametrize(
        "variable", ["SCHEDULER_ENGINES_COMFY", "SCHEDULER_ENGINES_comfy", "scheduler_engines_Comfy"]
    )
    def test_a_variable_overrides_the_name_that_differs_in_case_alone(self, home, variable):
        found = self.lines(
            "Comfy = comfyui http://127.0.0.1:1\njobs = job_api http://127.0.0.1:3",
            {variable: "comfyui http://127.0.0.1:2"},
        )
        assert found == {
            "Comfy": EngineLine("comfyui", ("http://127.0.0.1:2",)),
            "jobs": EngineLine("job_api", ("http://127.0.0.1:3",)),
        }

    def test_a_new_name_of_a_variable_is_in_lower_case(self, home):
        assert list(self.lines("", {"SCHEDULER_ENGINES_SECOND_COMFY": "comfyui http://127.0.0.1:2"})) == [
            "second_comfy"
        ]

    def test_a_variable_that_may_mean_several_names_is_told(self, home):
        text = f"{MINIMAL}[engines]\nComfy = comfyui http://127.0.0.1:1\ncomfy = comfyui http://127.0.0.1:2\n"
        (problem,) = problems(text, {"SCHEDULER_ENGINES_COMFY": "comfyui http://127.0.0.1:3"})
        assert problem.startswith("SCHEDULER_ENGINES_COMFY: it may mean Comfy or comfy")
        lines = load(text, {"SCHEDULER_ENGINES_comfy": "comfyui http://127.0.0.1:3"}).engines.lines
        assert lines["comfy"].base_urls == ("http://127.0.0.1:3",)
        assert lines["Comfy"].base_urls == ("http://127.0.0.1:1",)

    def test_a_variable_that_names_none_is_told(self, home):
        (problem,) = problems(MINIMAL, {"SCHEDULER_ENGINES__x": "comfyui http://127.0.0.1:1"})
        assert problem.startswith("SCHEDULER_ENGINES__x: '_x' is no runtime's name")

    def test_what_the_webui_is_told_is_marked_where_it_is_not_in_use(self, home):
        text = f"{MINIMAL}[engines]\ncomfy = comfyui http://127.0.0.1:1\n"
        notes = {row.key: row.note for row in config_pages.effective(load(text)) if row.note}
        assert set(notes) == {"sd_api_base_url", "restart_command"}
        assert "[engines] lists the engines" in notes["sd_api_base_url"]
        given = load(f"{text}[sd_api]\nsd_api_base_url = http://127.0.0.1:7860\n")
        assert not any(row.note for row in config_pages.effective(given) + config_pages.effective(load(MINIMAL)))


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("SCHEDULER_FOO_BAR", "see sd-scheduler config template"),
        ("SCHEDULER_AWS_BUCKET", "did you mean SCHEDULER_AWS_S3_BUCKET?"),
        ("SCHEDULER_CONFG", "did you mean SCHEDULER_CONFIG?"),
    ],
)
def test_a_variable_that_is_no_setting_is_likened_to_those_it_resembles(home, variable, hint):
    (problem,) = problems(MINIMAL, {variable: "x"})
    assert problem == f"{variable}: is no setting; {hint}"


class TestTemplate:
    def test_the_committed_one_is_the_generated_one(self):
        assert (REPOSITORY / "conf.template.ini").read_text() == config_pages.template()

    def test_it_loads_as_it_is_with_every_default(self, home):
        loaded = load(config_pages.template())
        assert {row.source for row in config_pages.effective(loaded) if row.section != "aws"} == {"default"}
        assert loaded.scheduler == load(MINIMAL).scheduler

    def test_its_defaults_can_be_uncommented(self, home):
        loaded = load(re.sub(r"^#(?=\w+ =)", "", config_pages.template(), flags=re.MULTILINE))
        rows = config_pages.effective(loaded)
        assert "default" not in {row.source for row in rows}
        assert "comfy" in loaded.engines.lines, "an example, no default"
        assert [row[:3] for row in rows if row.section != "engines"] == [
            row[:3] for row in config_pages.effective(load(config_pages.template()))
        ]

    def test_the_markdown_table_has_a_row_of_four_for_every_key(self):
        rows = [line.split(" | ") for line in config_pages.markdown_table().splitlines()[2:]]
        assert [(row[0].removeprefix("| "), row[1]) for row in rows] == [
            (section, key) for section, model in SECTIONS.items() for key in model.model_fields or ("NAME",)
        ]
        assert {len(row) for row in rows} == {4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


name = st.text(alphabet=st.sampled_from("abz09-"), min_size=1, max_size=20).map("n{}n".format)
names = st.lists(name, min_size=1, max_size=3, unique=True)
printable = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
VALUES = {
    "aws_region": st.sampled_from(["us-east-1", "eu-west-3"]),
    "sqs_queue_url": names.map(", ".join),
    "dynamodb_table": name,
    "s3_bucket": name,
    "cloudfront_domain": st.just("") | name.map("{}.example".format),
    "sd_api_base_url": names.map(lambda hosts: ", ".join(f"http://{host}:7860" for host in hosts)),
    "api_auth": st.just("") | printable.map("ann:{}".format),
    "restart_command": st.lists(printable, max_size=3).map(shlex.join),
    "poll_interval": st.integers(1, 20),
    "max_tasks_per_poll": st.integers(1, 10),
    "task_deadline_s": st.integers(1, 39600) | st.sampled_from([0.5, 12.25]),
    "max_runs": st.integers(1, 100),
    "stop_grace_s": st.integers(1, 3600),
    "memory_mb": st.integers(16),
    "default_prefix": names.map("/".join),
    "record_ttl_days": st.integers(29),
    "max_pixels": st.integers(4096),
    "health_host": st.sampled_from(["0.0.0.0", "::1"]) | name,
    "health_port": st.integers(0, 65535),
    "allow_hosts": st.sampled_from(["", "minio", "minio:9000, 10.0.0.5:80, 10.1.0.0/16, fd00::1, [fd00::2]:8080"]),
    "allow_buckets": st.just("") | names.map(", ".join),
    "max_bytes": st.integers(1024, 1 << 30),
    "timeout_s": st.integers(1, 600),
    "sns_topic_arn": st.sampled_from(["", "arn:aws-cn:sns:cn-north-1:123456789012:sd_results-2"]),
    "webhook_secret": st.sampled_from(["", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]),
    "enabled": st.sampled_from(["true", "false"]),
    "fleet": st.just("asg"),
    "fleet_id": name,
    "state_table": st.just("") | name,
    "min_capacity": st.integers(0, 10),
    "max_capacity": st.integers(10, 1000),
    "policy": st.sampled_from(["backlog", "threshold", "step", "idle-stop"]),
    "target_wait_s": st.integers(1, 86400),
    "preset": st.sampled_from(["thrifty", "balanced", "prompt"]),
    "late_worth_s": st.just("") | st.integers(1, 1_000_000),
    "scale_out_threshold": st.integers(0, 1000),
    "scale_out_step": st.integers(1, 1000),
    "scale_in_step": st.integers(1, 1000),
    "cooldown_s": st.integers(0, 86400),
    "steps": st.sampled_from(["1:1", "10:1, 50:2"]),
    "idle_stop_minutes": st.integers(1, 10080),
    "stuck_minutes": st.integers(0, 10080),
}


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("enabled = maybe", "enabled = 'maybe': expected true or false"),
        (
            "enabled = true",
            "fleet_id is not given, and its default does not do: expected the id of a Spot Fleet request",
        ),
        ("fleet = asgs", "fleet = 'asgs': expected one of spot-fleet, asg, instance, local"),
        ("fleet = instance\nfleet_id = sfr-12345678", "fleet_id = 'sfr-12345678': expected the id of an instance"),
        ("min_capacity = 5", "max_capacity is not given, and its default does not do: expected at least min_capacity"),
        ("min_capacity = 5\nmax_capacity = 4", "max_capacity = '4': expected at least min_capacity, which is 5"),
        ("steps = 50:1, 10:2", "expected MESSAGES:WORKERS pairs with rising numbers of messages"),
        ("steps = 10:0", "expected MESSAGES:WORKERS pairs with rising numbers of messages"),
        ("late_worth_s = 0", "late_worth_s = '0': expected a number from 1 to 1000000, or nothing"),
        ("late_worth_s = much", "late_worth_s = 'much': expected a number from 1 to 1000000, or nothing"),
        ("target_wait_s = 0", "target_wait_s = '0': expected a number from 1 to 86400"),
    ],
)
def test_what_is_wrong_in_autoscaling_is_told(home, lines, told):
    (problem,) = problems(f"{MINIMAL}[autoscaling]\n{lines}\n")
    assert told in problem


def test_the_fleets_table_is_named_after_the_records_unless_it_has_a_name(home):
    assert load(MINIMAL).state_table == "records-fleet"
    assert load(f"{MINIMAL}[autoscaling]\nstate_table = fleet-state\n").state_table == "fleet-state"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("allow_hosts = minio, 10.0.0.1/8", "item 2: expected a network without host bits"),
        ("allow_hosts = http://minio", "expected a host name, an IP address"),
        ("allow_hosts = *.example.com", "expected a host name, an IP address"),
        ("allow_hosts = 127.1", "expected a host name, an IP address"),
        ("allow_hosts = minio:0", "expected a host name, an IP address"),
        ("allow_hosts = 169.254.169.254", "such addresses are never gone to"),
        ("allow_hosts = [fd00:ec2::254]:80", "such addresses are never gone to"),
        ("allow_hosts = minio, minio", "item 2: the same as item 1"),
        ("allow_buckets = s3://pictures", "expected a bucket's name, without s3://"),
        ("max_bytes = 1023", "expected a whole number from 1024"),
        ("timeout_s = 0", "expected a number above 0 to 600"),
    ],
)
def test_what_is_wrong_in_inputs_is_told(home, lines, told):
    (problem,) = problems(f"{MINIMAL}[inputs]\n{lines}\n")
    assert told in problem


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("sns_topic_arn = sd-results", "expected the ARN of a topic"),
        ("sns_topic_arn = arn:aws:sqs:us-east-1:123456789012:sd-results", "expected the ARN of a topic"),
        ("sns_topic_arn = arn:aws:sns:us-east-1:123456789012:sd-results.fifo", "a FIFO topic does not do"),
        ("webhook_secret = no key at all, but plain words", "openssl rand -base64 32"),
        ("webhook_secret = whsec_not+base64!", "24 to 64 bytes in base64"),
        ("webhook_secret = whsec_c2hvcnQ=", "24 to 64 bytes in base64"),
    ],
)
def test_what_is_wrong_in_notify_is_told_and_no_secret_shown(home, line, told):
    (problem,) = problems(f"{MINIMAL}[notify]\n{line}\n")
    assert told in problem
    assert "webhook" not in line or line.rpartition(" ")[2] not in problem


def test_inputs_are_read_from_the_own_bucket_alone_unless_others_are_listed(home):
    assert load(MINIMAL).input_buckets == ("pictures",)
    assert load(f"{MINIMAL}[inputs]\nallow_buckets = drafts, photos\n").input_buckets == ("drafts", "photos")


@settings(deadline=None)
@given(values=st.fixed_dictionaries(VALUES))
def test_whatever_is_filled_into_the_template_comes_back(folder, values):
    text = config_pages.template()
    for key, value in values.items():
        line = f"{key} = {value}".replace("${", "$${")
        text, count = re.subn(rf"^#?{key} =.*$", lambda _, line=line: line, text, flags=re.MULTILINE)
        assert count == 1
    path = folder / "filled.ini"
    path.write_text(text)
    loaded = config.load(path, {})
    shown = {row.key: row.value for row in config_pages.effective(loaded)}
    secrets = {key: values[key] for key in ("api_auth", "webhook_secret")}
    assert loaded.secrets == list(secrets.values())
    hidden = {key: "***" if secret else "" for key, secret in secrets.items()}
    assert shown == {key: str(value) for key, value in values.items()} | hidden


@settings(deadline=None)
@given(
    # Marked, because hypothesis also tries words of the program, which a report may well hold.
    secret=st.text(
        alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="$"), max_size=24
    ).map("zQ9x{}".format),
    form=st.sampled_from(
        [
            "api_auth = {}",
            "api_auth = ann:{}",
            "api_auth = {}\napi_auth = {}",
            "api_auth: {}",
            "api_auth {}",
            "api_auth {} = 1",
            " api_auth = {}",
            "api_auth = ann:{}\n  {}",
            "sd_api_base_url = http://h\n  api_auth = {}",
            "sd_api_base_url = http://h\n  api_auth: {}",
            "sd_api_base_url = http://ann:{}@h",
            "api_atuh = {}",
            "api_auth = ${{A_PASSWORD}}",
            "api_auth = ${{A_PASSWORD}}${{NONE}}",
            "",
        ]
    ),
    by_variable=st.booleans(),
    more=st.sampled_from(["", "[scheduler]\npoll_interval = 99\n"]),
)
@example(secret="abc'\"\\%;#=", form="sd_api_base_url = http://ann:{}@h", by_variable=False, more="")
def test_no_secret_is_ever_shown(folder, secret, form, by_variable, more):
    path = folder / "secret.ini"
    path.write_text(f"{MINIMAL}[sd_api]\n{form.format(*[secret] * form.count('{}'))}\n{more}")
    environ = {"A_PASSWORD": secret} | ({"SCHEDULER_SD_API_API_AUTH": secret} if by_variable else {})
    try:
        loaded = config.load(path, environ)
    except ConfigError as error:
        seen = [str(error), repr(error), *error.problems, repr(error.__cause__), repr(error.__context__)]
    else:
        seen = [repr(loaded), str(loaded.sd_api), repr(config_pages.effective(loaded)), str(loaded.sd_api.model_dump())]
    for command in ("show", "check"):
        for form_of_output in ([], ["--json"]):
            done = CliRunner().invoke(cli, ["config", command, "-c", str(path), *form_of_output], env=environ)
            assert isinstance(done.exception, SystemExit | None)
            seen.append(done.output)
    assert secret not in "".join(seen)
    assert json.dumps(secret)[1:-1] not in "".join(seen)
    assert repr(secret)[1:-1] not in "".join(seen)


def test_the_daemon_does_not_load_rich_for_its_settings():
    code = "import sys, scheduler.config, scheduler.cli.root; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
