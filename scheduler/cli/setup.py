"""``sd-scheduler setup``: makes queues, table and bucket for the configuration, in an account or an emulator."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from scheduler import config as configuration
from scheduler.aws import operator_clients
from scheduler.aws.addresses import Account
from scheduler.aws.errors import translated
from scheduler.aws.fleet_policy import Role
from scheduler.aws.making import Making, Outcome, State
from scheduler.aws.resources import name_faults, set_up
from scheduler.cli.failure import FAILED, REFUSED
from scheduler.cli.listing import Row, show
from scheduler.cli.options import config_option, json_option
from scheduler.cli.policy import policy_option, print_policy
from scheduler.domain.errors import ConfigError


@click.command("setup", short_help="Make queues, table and bucket.")
@config_option
@click.option("--dry-run", is_flag=True, help="Change nothing; tell what would be done.")
@click.option("--fix", is_flag=True, help="Also mend what is there and differs, where AWS lets it be mended in place.")
@policy_option
@json_option
def setup_command(config: Path | None, dry_run: bool, fix: bool, policy: str | None, as_json: bool) -> None:
    """Make the queues with their dead-letter queues, the table and the bucket that the configuration names.

    What is there is left as it is; a missing redrive policy, index or expiry is added, any other difference is told.
    It may be run again at any time, and asks AWS_ENDPOINT_URL where that is set.

    \b
    Exits with
      0  everything is as it should be
      1  something differs or failed
      2  the configuration is wrong
      3  AWS refused something: credentials, permissions, a name that is taken

    \b
    Examples:
      sd-scheduler setup --dry-run
      sd-scheduler setup -c /etc/sd-scheduler/conf.ini
      sd-scheduler setup --fix --json | jq -r '.resources[] | select(.state == "fixed").resource'
      sd-scheduler setup --print-policy > policy.json
      sd-scheduler setup --print-policy autoscale > policy-of-the-lambda.json
    """
    settings = configuration.load(config, os.environ)
    aws = settings.aws
    if faults := name_faults(aws.sqs_queue_url, aws.aws_region):
        raise ConfigError(faults)
    if policy:
        print_policy(settings, Role(policy))
        return
    making = _making(aws.aws_region, is_rehearsed=dry_run, fixes=fix)
    told = _Told(
        set_up(
            making,
            queues=aws.sqs_queue_url,
            table=aws.dynamodb_table,
            bucket=aws.s3_bucket,
            state_table=settings.state_table if settings.autoscaling.fleet_id else None,
        )
    )
    if as_json:
        _print_json(told, making)
    else:
        click.echo(f"account {making.account.number}, region {making.account.region}", err=True)
        rows = (Row(subject=each.resource, state=each.told, text=each.detail) for each in told)
        show(rows, subject="resource", text="")
    sys.exit(told.exit_code)


@dataclass(slots=True)
class _Told:
    """Passes outcomes on, and remembers what they come to."""

    outcomes: Iterable[Outcome]
    exit_code: int = 0

    def __iter__(self) -> Iterator[Outcome]:
        for outcome in self.outcomes:
            if outcome.state is State.REFUSED:
                self.exit_code = REFUSED
            elif outcome.state in {State.DIFFERS, State.FAILED}:
                self.exit_code = self.exit_code or FAILED
            yield outcome


def _making(region: str, *, is_rehearsed: bool, fixes: bool) -> Making:
    """Find out whose account it is. Raises AccessDenied, Unavailable."""
    clients = operator_clients.build(region)
    with translated("asking whose credentials these are"):
        number = clients.sts.get_caller_identity()["Account"]
    return Making(
        clients=clients,
        account=Account(number=number, region=region, partition=clients.partition),
        is_rehearsed=is_rehearsed,
        fixes=fixes,
        say=lambda text: click.echo(text, err=True),
    )


def _print_json(told: Iterable[Outcome], making: Making) -> None:
    resources = [{"resource": each.resource, "state": each.told, "detail": each.detail} for each in told]
    place = {"account": making.account.number, "region": making.account.region, "dry_run": making.is_rehearsed}
    click.echo(json.dumps({**place, "resources": resources}, indent=2))
