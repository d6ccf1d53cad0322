"""``sd-scheduler doctor``: checks everything that the daemon needs, and says what to do about what is wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from scheduler import config as configuration
from scheduler.aws import checks, operator_clients
from scheduler.aws.addresses import topic_region
from scheduler.aws.checking import Finding, Verdict, fail, ok, skipped
from scheduler.aws.fleet_policy import Role
from scheduler.cli import fleet_checks, host_checks
from scheduler.cli.failure import FAILED, WRONG_USE
from scheduler.cli.listing import Row, show
from scheduler.cli.options import config_option, json_option
from scheduler.cli.policy import policy_option, print_policy
from scheduler.config import Settings
from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import ConfigError, Unavailable
from scheduler.observe import logging

REPOSITORY = Path(__file__).parents[2]


@click.command("doctor", short_help="Check all that the daemon needs.")
@config_option
@policy_option
@json_option
def doctor_command(config: Path | None, policy: str | None, as_json: bool) -> None:
    """Check the configuration, credentials, each permission used, queues, table, buckets, topic, engines, disk and
    clock.

    Run it on the instance, as the user that the daemon runs as. It hides no message from anybody (its look into a queue
    counts as one receive) and writes nothing but one small object, <default_prefix>/doctor-probe.txt. What it could not
    check it calls `skipped`, with the reason.

    \b
    Exits with
      0  nothing failed (warnings may be there)
      1  something failed
      2  the configuration is wrong
      3  --print-policy: AWS did not tell whose account it is

    \b
    Examples:
      sd-scheduler doctor
      sd-scheduler doctor -c /etc/sd-scheduler/conf.ini --json | jq -r '.checks[] | select(.verdict == "fail").advice'
      sd-scheduler doctor --print-policy > policy.json
    """
    if policy:
        print_policy(configuration.load(config, os.environ), Role(policy))
        return
    examination = _Examination(_findings(config))
    if as_json:
        found = [asdict(finding) for finding in examination]
        click.echo(json.dumps({"ok": examination.exit_code == 0, "checks": found}, indent=2))
    else:
        rows = (
            Row(subject=each.check, state=each.verdict, text=each.found, advice=each.advice) for each in examination
        )
        show(rows, subject="check", text="found")
    sys.exit(examination.exit_code)


@dataclass(slots=True)
class _Examination:
    """Passes findings on, and remembers what they come to."""

    findings: Iterable[Finding]
    exit_code: int = 0

    def __iter__(self) -> Iterator[Finding]:
        for finding in self.findings:
            if finding.verdict is Verdict.FAIL:
                wrong = WRONG_USE if finding.check == "configuration" else FAILED
                self.exit_code = max(self.exit_code, wrong)
            yield finding


def _findings(file: Path | None) -> Iterator[Finding]:
    try:
        settings = configuration.load(file, os.environ)
    except ConfigError as error:
        for problem in error.problems:
            yield fail("configuration", problem, "correct it; sd-scheduler config template explains every key")
        yield host_checks.disk(Path())
        yield skipped("AWS, engines, supervisord stop time", "not checked: they need a right configuration")
        return
    logging.configure(secrets=settings.secrets, stream=sys.stderr)
    yield ok("configuration", _where_from(settings))
    yield from _aws(settings)
    yield from _host(settings)


def _where_from(settings: Settings) -> str:
    file = str(settings.file) if settings.file else "from the environment"
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    return f"{file}; AWS is {configuration.hide_login(endpoint)}" if endpoint else file


def _aws(settings: Settings) -> Iterator[Finding]:
    try:
        topic = topic_region(settings.notify.sns_topic_arn)
        clients = operator_clients.build(settings.aws.aws_region, topic_region=topic)
    except Unavailable as error:
        yield fail(
            "credentials", error.message, "see how AWS tools find credentials; the daemon finds them the same way"
        )
        yield skipped("queues, table, bucket, clock", "not checked: there are no credentials")
    else:
        yield from checks.run(clients, settings, clock=SystemClock())
        yield from fleet_checks.findings(clients, settings)


def _host(settings: Settings) -> Iterator[Finding]:
    from scheduler.engines.build import build_engines  # noqa: PLC0415  # brings Pillow, which nothing else here needs
    from scheduler.stores.inputs import build_inputs  # noqa: PLC0415

    configured = settings.configured_engines
    yield from host_checks.engines(configured, build_engines(settings, build_inputs(settings)))
    yield from host_checks.restart_commands(configured)
    yield host_checks.disk(Path())
    yield host_checks.stop_time(settings.scheduler.stop_grace_s, [Path(), REPOSITORY])
