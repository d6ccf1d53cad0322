"""The daemon's supervisord section: what is committed is what is generated, and the times agree."""

from __future__ import annotations

import configparser
import os
from pathlib import Path

import pytest
from annotated_types import Le
from click.testing import CliRunner

from scheduler.cli.root import cli
from scheduler.config_sections import Scheduler
from scheduler.supervisor_program import LONGEST_POLL_S, POLL_MARGIN_S, STOP_MARGIN_S, program, stop_wait_s

COMMAND = ("config", "supervisor")
DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_committed_section_is_the_generated_one_for_the_default_grace():
    assert (DEPLOY / "supervisord" / "api-scheduler.conf").read_text() == program(90)


def stop_wait_of(section: str) -> int:
    parser = configparser.RawConfigParser()
    parser.read_string(section)
    return int(parser["program:api-scheduler"]["stopwaitsecs"])


@pytest.mark.parametrize("grace_s", [23, 90, 600])
def test_supervisord_waits_longer_than_the_daemon_asks_for(grace_s):
    assert stop_wait_of(program(grace_s)) == stop_wait_s(grace_s) == grace_s + 15


@pytest.mark.parametrize("grace_s", [1, 6, 22])
def test_supervisord_waits_for_the_longest_poll_that_can_be_under_way_however_short_the_grace(grace_s):
    [bound] = [each.le for each in Scheduler.model_fields["poll_interval"].metadata if isinstance(each, Le)]
    assert bound == LONGEST_POLL_S
    assert stop_wait_of(program(grace_s)) == stop_wait_s(grace_s) == bound + POLL_MARGIN_S + STOP_MARGIN_S


@pytest.mark.parametrize("script", sorted((DEPLOY / "run").glob("*.sh")), ids=lambda path: path.name)
def test_run_scripts_are_executable_and_stop_at_the_first_error(script):
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    assert "set -eu" in lines


CONF = """\
[aws]
aws_region = eu-west-1
sqs_queue_url = tasks
dynamodb_table = tasks
s3_bucket = pictures

[scheduler]
stop_grace_s = {grace}
"""


@pytest.fixture
def bare_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SCHEDULER_")]:
        monkeypatch.delenv(name)


def test_the_command_prints_the_section_for_the_grace_of_the_configuration(tmp_path, bare_environment):
    conf = tmp_path / "conf.ini"
    conf.write_text(CONF.format(grace=200))
    result = CliRunner().invoke(cli, [*COMMAND, "-c", str(conf)])
    assert (result.exit_code, result.stdout) == (0, program(200))


def test_the_command_refuses_a_bad_configuration_and_leaves_the_section_that_is_there(tmp_path, bare_environment):
    conf, section = tmp_path / "conf.ini", tmp_path / "api-scheduler.conf"
    conf.write_text(CONF.format(grace=30))
    assert CliRunner().invoke(cli, [*COMMAND, "-c", str(conf), "-o", str(section)]).exit_code == 0
    assert section.read_text() == program(30)

    conf.write_text(CONF.format(grace="soon"))
    result = CliRunner().invoke(cli, [*COMMAND, "-c", str(conf), "-o", str(section)])
    assert result.exit_code == 2
    assert "stop_grace_s" in result.stderr
    assert section.read_text() == program(30)


def test_the_command_says_where_it_could_not_write(tmp_path, bare_environment):
    conf = tmp_path / "conf.ini"
    conf.write_text(CONF.format(grace=30))
    result = CliRunner().invoke(cli, [*COMMAND, "-c", str(conf), "-o", str(tmp_path / "none" / "x.conf")])
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr
