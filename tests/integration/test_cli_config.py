"""`sd-scheduler config` as people and scripts run it: real processes, through pipes and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler import config_pages

REPOSITORY = Path(__file__).parents[2]
MINIMAL = "[aws]\naws_region = us-east-1\nsqs_queue_url = tasks\ndynamodb_table = records\ns3_bucket = pictures\n"
SECRET = "correct-horse"
COMMAND = [sys.executable, "-c", "from scheduler.cli.root import cli; cli(prog_name='sd-scheduler')", "config"]


@pytest.fixture
def run(tmp_path):
    """Runs the command in an empty directory, with nothing of ours in its environment but what is given."""

    def runs(*words, environ=None):
        return subprocess.run(
            [*COMMAND, *words],
            cwd=tmp_path,
            env=environment(environ),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return runs


def environment(more=None):
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("SCHEDULER_", "AWS_"))}
    return kept | {"PYTHONPATH": str(REPOSITORY)} | (more or {})


def test_from_the_template_to_a_checked_configuration(run, tmp_path):
    assert run("template", "-c", "conf.ini").returncode == 0
    assert (tmp_path / "conf.ini").read_text() == config_pages.template()
    done = run("check")
    assert done.returncode == 0
    assert re.match(r"OK: 4 keys from conf.ini, 0 from the environment, \d+ by default\n", done.stdout)
    assert [line.split()[2] for line in done.stderr.splitlines()] == ["sqs_queue_url", "s3_bucket"]
    assert json.loads(run("check", "--json").stdout)["left_as_examples"] == ["sqs_queue_url", "s3_bucket"]


def test_a_configuration_of_ones_own_is_right_without_a_warning(run, tmp_path):
    (tmp_path / "conf.ini").write_text(MINIMAL)
    done = run("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(run("check", "--json").stdout)["left_as_examples"] == []


def test_the_template_is_never_written_over_a_file(run, tmp_path):
    (tmp_path / "conf.ini").write_text("mine")
    done = run("template", "-c", "conf.ini")
    assert (done.returncode, done.stderr) == (1, "error: conf.ini: File exists\n")
    assert (tmp_path / "conf.ini").read_text() == "mine"


def test_the_template_is_printed_in_both_forms(run):
    assert run("template").stdout == config_pages.template()
    assert run("template", "--format", "markdown").stdout == config_pages.markdown_table()


def test_check_tells_every_problem_on_a_line_and_exits_with_2(run, tmp_path):
    (tmp_path / "other.ini").write_text(f"{MINIMAL}max = 1\n[sd_api]\napi_auth = {SECRET}\n")
    done = run("check", "--config", "other.ini")
    assert done.returncode == 2
    assert done.stdout == ""
    assert [line.partition(" ")[0] for line in done.stderr.splitlines()] == ["other.ini:6:", "other.ini:8:", "2"]
    assert SECRET not in done.stderr
    as_json = run("check", "--json", "-c", "other.ini")
    assert as_json.returncode == 2
    told = json.loads(as_json.stdout)
    assert (told["ok"], told["kind"], told["problems"]) == (False, "configuration", done.stderr.splitlines()[:2])
    assert as_json.stderr == ""


def test_check_without_a_file_says_what_to_do(run):
    done = run("check")
    assert done.returncode == 2
    assert "cp conf.template.ini conf.ini" in done.stderr


def test_the_environment_alone_is_enough(run):
    environ = {f"SCHEDULER_AWS_{key}": "tasks" for key in ("SQS_QUEUE_URL", "DYNAMODB_TABLE", "S3_BUCKET")}
    done = run("check", environ=environ | {"SCHEDULER_AWS_REGION": "us-east-1"})
    assert re.match(r"OK: no file read, 4 from the environment, \d+ by default\n", done.stdout)
    as_json = run("check", "--json", environ=environ | {"SCHEDULER_AWS_REGION": "us-east-1"})
    told = json.loads(as_json.stdout)
    assert (told["ok"], told["file"], told["problems"], told["left_as_examples"]) == (True, None, [], [])


WEBUI = "engine sdwebui: sdwebui at http://127.0.0.1:7860, for tasks that ask for sdwebui or legacy"


def test_check_lists_the_engines_there_would_be(run, tmp_path):
    (tmp_path / "conf.ini").write_text(MINIMAL)
    assert run("check").stdout.splitlines()[1:] == [WEBUI]
    engines = "[engines]\nComfy = comfyui http://127.0.0.1:1,http://127.0.0.1:2\n"
    (tmp_path / "conf.ini").write_text(f"{MINIMAL}[sd_api]\nsd_api_base_url = http://127.0.0.1:7860\n{engines}")
    second = "engine Comfy-2: comfyui at http://127.0.0.1:2, for tasks that ask for Comfy"
    assert run("check").stdout.splitlines()[1:] == [WEBUI, "engine Comfy: comfyui at http://127.0.0.1:1", second]
    listed = json.loads(run("check", "--json").stdout)["engines"]
    assert [(each["name"], each["kind"], each["base_url"], each["runtimes"]) for each in listed] == [
        ("sdwebui", "sdwebui", "http://127.0.0.1:7860", ["sdwebui", "legacy"]),
        ("Comfy", "comfyui", "http://127.0.0.1:1", ["Comfy"]),
        ("Comfy-2", "comfyui", "http://127.0.0.1:2", ["Comfy"]),
    ]


def test_a_webui_that_is_not_among_the_engines_is_told(run, tmp_path):
    (tmp_path / "conf.ini").write_text(f"{MINIMAL}[engines]\ncomfy = comfyui http://127.0.0.1:1\n")
    engine, word = run("check").stdout.splitlines()[1:]
    assert engine == "engine comfy: comfyui at http://127.0.0.1:1"
    assert "sd_api_base_url" in word
    (line,) = (line for line in run("show").stdout.splitlines() if "sd_api_base_url" in line)
    assert line.split(None, 4)[3:] == ["default", "not in use: [engines] lists the engines"]
    shown = json.loads(run("show", "--json").stdout)
    assert "not in use" in shown["sd_api"]["sd_api_base_url"]["note"]
    assert "note" not in shown["aws"]["s3_bucket"]


def test_show_prints_aligned_lines_into_a_pipe(run, tmp_path):
    (tmp_path / "conf.ini").write_text(f"{MINIMAL}[sd_api]\napi_auth = ann:{SECRET}\n")
    environ = {"SCHEDULER_SCHEDULER_MAX_RUNS": "5", "AWS_ENDPOINT_URL_SQS": f"http://ann:{SECRET}@127.0.0.1:1"}
    done = run("show", environ=environ)
    assert done.returncode == 0
    rows = {line.split()[1]: line.split() for line in done.stdout.splitlines()}
    assert rows["s3_bucket"] == ["aws", "s3_bucket", "pictures", "conf.ini:5"]
    assert rows["api_auth"] == ["sd_api", "api_auth", "***", "conf.ini:7"]
    assert rows["max_runs"] == ["scheduler", "max_runs", "5", "SCHEDULER_SCHEDULER_MAX_RUNS"]
    assert rows["AWS_ENDPOINT_URL_SQS"][2:] == ["http://***@127.0.0.1:1", "AWS_ENDPOINT_URL_SQS"]
    assert len({line.index(line.split()[1]) for line in done.stdout.splitlines()}) == 1
    assert "\x1b" not in done.stdout
    assert SECRET not in done.stdout


def test_show_prints_json(run, tmp_path):
    (tmp_path / "conf.ini").write_text(MINIMAL)
    shown = json.loads(run("show", "--json", environ={"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}).stdout)
    assert shown["aws"]["s3_bucket"] == {"value": "pictures", "source": "conf.ini:5"}
    assert shown["scheduler"]["health_port"] == {"value": "8080", "source": "default"}
    assert shown["environment"] == {"AWS_ENDPOINT_URL": {"value": "http://127.0.0.1:1", "source": "AWS_ENDPOINT_URL"}}


def test_show_draws_a_table_on_a_terminal(tmp_path):
    (tmp_path / "conf.ini").write_text(
        f"{MINIMAL}[sd_api]\napi_auth = ann:{SECRET}\nrestart_command = echo [red]x[/red]\n"
    )
    ours, theirs = pty.openpty()
    environ = environment({"TERM": "xterm", "COLUMNS": "120"})
    environ.pop("NO_COLOR", None)
    with subprocess.Popen([*COMMAND, "show"], cwd=tmp_path, env=environ, stdout=theirs, stdin=theirs) as process:
        os.close(theirs)
        printed = read_all(ours).decode()
        assert process.wait(timeout=60) == 0
    assert "\x1b[" in printed
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    assert re.search(r"│ aws +│ s3_bucket +│ pictures +│ conf\.ini:5 +│", plain)
    assert "echo '[red]x[/red]'" in plain
    assert SECRET not in plain


def read_all(descriptor):
    chunks = []
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # how Linux says that the other end of a terminal is closed
            chunk = b""
        if not chunk:
            os.close(descriptor)
            return b"".join(chunks)
        chunks.append(chunk)


@pytest.mark.parametrize("command", ["check", "show", "template"])
def test_every_command_has_help_with_an_example(run, command):
    done = run(command, "--help")
    assert done.returncode == 0
    assert re.search(rf"Example:\n +sd-scheduler config {command}", done.stdout)
    assert "-c, --config FILE" in done.stdout
