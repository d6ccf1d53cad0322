"""``--print-policy`` of setup and doctor: the IAM policy of a role for the present configuration."""

from __future__ import annotations

import json
from contextlib import suppress

import click

from scheduler.aws import operator_clients
from scheduler.aws.addresses import Account, QueueAddress, read_queue
from scheduler.aws.errors import translated
from scheduler.aws.fleet_policy import Role, fleet_policy, fleet_statements, host_statements
from scheduler.aws.policy import addresses, ask_dlqs, policy_for
from scheduler.config import Settings
from scheduler.domain.errors import ConfigError, Unavailable

policy_option = click.option(
    "--print-policy",
    "policy",
    is_flag=False,
    flag_value=Role.WORKER.value,
    type=click.Choice([role.value for role in Role]),
    help="Print the IAM policy that a worker needs, or who runs `autoscale` (or its Lambda), or an operator of the fleet, "
    "and do no more.",
)


def print_policy(settings: Settings, role: Role) -> None:
    """Print the policy. The account is the queues', else the credentials' own; AWS is asked for the dead-letter queues.

    What AWS does not tell is guessed, and a note on standard error says so. Raises Unavailable when not even the
    account is known, and ConfigError where a fleet is meant and none is configured.
    """
    aws = settings.aws
    if role is not Role.WORKER and not settings.autoscaling.fleet_id:
        raise ConfigError(["[autoscaling] fleet_id is missing: say which fleet is meant"])
    number = next((named for queue in aws.sqs_queue_url if (named := read_queue(queue).account)), None)
    dlqs: dict[str, QueueAddress] = {}
    try:
        clients = operator_clients.build(aws.aws_region)
        if number is None:
            with translated("asking whose credentials these are"):
                number = clients.sts.get_caller_identity()["Account"]
        for queue in aws.sqs_queue_url:
            dlqs |= _known_dlq(clients, queue)
    except Unavailable as error:
        if number is None:
            raise
        click.echo(f"note: {error.message}; dead-letter queues are taken to be named as setup names them", err=True)
    account = Account(number=number, region=aws.aws_region, partition=operator_clients.partition_of(aws.aws_region))
    section, table = settings.autoscaling, settings.state_table
    if role is not Role.WORKER:
        queues, dead = addresses(aws, dlqs)
        policy = fleet_policy(
            role, section.fleet, section.fleet_id, account, state_table=table, queues=queues, dlqs=dead
        )
        click.echo(json.dumps(policy, indent=2))
        return
    policy = policy_for(
        aws, account, dlqs=dlqs, input_buckets=settings.input_buckets, topic_arn=settings.notify.sns_topic_arn
    )
    if section.fleet_id:
        policy["Statement"] += fleet_statements(section.fleet, section.fleet_id, account, state_table=table)
        policy["Statement"] += host_statements(section.fleet, section.fleet_id, account)
    click.echo(json.dumps(policy, indent=2))


def _known_dlq(clients: operator_clients.OperatorClients, queue: str) -> dict[str, QueueAddress]:
    with suppress(Unavailable):
        return ask_dlqs(clients, [queue])
    click.echo(f"note: {queue} could not be asked; its dead-letter queue is taken to be named as by setup", err=True)
    return {}
