"""An Auto Scaling group's hooks answered by the real client, over a socket."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from aws_servers import REGION, Cloud, unique
from botocore.config import Config
from fakes import FakeClock
from fakes.lifecycle import FakeLifecycle

from scheduler.aws.lifecycle_hook import LifecycleHooks
from scheduler.domain.errors import AccessDenied, Unavailable

LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"


@pytest.fixture
def group(clock: FakeClock) -> FakeLifecycle:
    return FakeLifecycle(clock)


@pytest.fixture
def hooks(group: FakeLifecycle) -> Iterator[LifecycleHooks]:
    with group.serving() as url:
        client = boto3.client(
            "autoscaling", region_name=REGION, endpoint_url=url, config=Config(retries={"total_max_attempts": 1})
        )
        yield LifecycleHooks(client, group=group.group, instance_id=group.instance_id)


def test_the_only_hook_of_a_group_for_its_end_is_ours_whatever_its_name(group, hooks):
    group.add("drain", 300)
    group.add("warm-up", 60, transition=LAUNCHING)
    assert [(hook.name, hook.heartbeat_s, hook.global_s) for hook in hooks.ours()] == [("drain", 300, 30_000)]


def test_of_several_hooks_those_of_our_name_are_ours(group, hooks):
    group.add("ship-logs", 300)
    assert [hook.name for hook in hooks.ours()] == ["ship-logs"]
    group.add("audit", 300)
    assert hooks.ours() == ()
    group.add("sd-scheduler-drain", 60)
    assert [hook.name for hook in hooks.ours()] == ["sd-scheduler-drain"]


def test_a_task_longer_than_the_hook_waits_is_waited_for_and_then_the_instance_goes(group, hooks, clock):
    group.add("drain", 60)
    group.end_instance()
    since_s = clock.now()
    for _ in range(10):  # a task of 300 s
        until_s = hooks.keep_waiting(since_s=since_s, now_s=clock.now())
        assert until_s == clock.now() + 60
        clock.advance(30)
        assert not group.is_gone
    assert hooks.let_go()
    assert group.is_gone
    assert group.hooks["drain"].result == "CONTINUE"


def test_the_time_told_is_never_later_than_the_group_waits_at_all(group, hooks, clock):
    hook = group.add("drain", 30, most_s=300)
    group.end_instance()
    since_s = clock.now()
    while (until_s := hooks.keep_waiting(since_s=since_s, now_s=clock.now())) is not None:
        assert until_s == hook.waits_until_s
        clock.advance(20)
    assert group.is_gone
    assert clock.now() - since_s >= 300


def test_of_several_hooks_of_ours_the_first_to_run_out_decides(group, hooks, clock):
    group.add("sd-scheduler-a", 600)
    group.add("sd-scheduler-b", 60)
    group.end_instance()
    assert hooks.keep_waiting(since_s=clock.now(), now_s=clock.now()) == clock.now() + 60
    assert hooks.let_go()
    assert group.is_gone


def test_another_hook_is_never_completed(group, hooks):
    group.add("ship-logs", 300)
    group.add("sd-scheduler-drain", 60)
    group.end_instance()
    assert hooks.let_go()
    assert not group.is_gone
    assert group.hooks["ship-logs"].result is None


def test_a_hook_that_does_not_wait_for_us_is_no_error(group, hooks, clock):
    assert hooks.keep_waiting(since_s=0, now_s=clock.now()) is None
    assert not hooks.let_go()
    group.add("drain", 60)  # not yet
    assert hooks.keep_waiting(since_s=0, now_s=clock.now()) is None
    assert not hooks.let_go()
    group.end_instance()
    assert hooks.let_go()
    assert not hooks.let_go()  # not any more
    assert hooks.keep_waiting(since_s=0, now_s=clock.now()) is None


@pytest.mark.parametrize("action", ["ours", "let_go"])
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("AccessDenied", AccessDenied),
        ("Throttling", Unavailable),
        ("ValidationError", Unavailable),  # for another reason than that nothing waits
    ],
)
def test_refusals_are_said_in_our_words(group, hooks, action, code, error):
    group.refusal = (code, "no")
    with pytest.raises(error, match="sd-workers"):
        getattr(hooks, action)()


def test_a_refused_answer_is_not_taken_for_a_hook_that_does_not_wait(group, hooks, monkeypatch):
    group.add("drain", 60)
    group.end_instance()
    known = hooks.ours()
    monkeypatch.setattr(hooks, "ours", lambda: known)
    group.refusal = ("ValidationError", "AutoScalingGroup name not found - null")
    with pytest.raises(Unavailable, match="drain"):
        hooks.let_go()


def test_moto_knows_the_group_and_its_hooks(moto: Cloud):
    client = boto3.client("autoscaling", region_name=REGION, endpoint_url=moto.url)
    ec2 = boto3.client("ec2", region_name=REGION, endpoint_url=moto.url)
    name = unique("group")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    client.create_launch_configuration(LaunchConfigurationName=name, ImageId=image, InstanceType="t3.micro")
    client.create_auto_scaling_group(
        AutoScalingGroupName=name,
        LaunchConfigurationName=name,
        MinSize=0,
        MaxSize=1,
        DesiredCapacity=1,
        AvailabilityZones=[f"{REGION}a"],
    )
    client.put_lifecycle_hook(
        LifecycleHookName="drain",
        AutoScalingGroupName=name,
        LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
        HeartbeatTimeout=120,
    )
    (instance,) = client.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]["Instances"]
    hooks = LifecycleHooks(client, group=name, instance_id=instance["InstanceId"])
    assert [(hook.name, hook.heartbeat_s) for hook in hooks.ours()] == [("drain", 120)]
