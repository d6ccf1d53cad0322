"""An Auto Scaling group's hook for instances that it ends: made to wait while a task is finished, then let go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from scheduler.aws.answers import understood
from scheduler.aws.errors import code_of

if TYPE_CHECKING:
    from types_boto3_autoscaling import AutoScalingClient
    from types_boto3_autoscaling.type_defs import LifecycleHookTypeDef

TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"
OUR_PREFIX = "sd-scheduler"
"""Where a group has several hooks for its end, ours are known by their names: to complete another's would cut off
whoever it waits for."""
NOT_WAITING = "No active Lifecycle Action found"
DEFAULT_HEARTBEAT_S = 3600
MOST_HEARTBEATS, MOST_WAIT_S = 100, 172_800


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A hook of the group for instances that end. Each heartbeat makes it wait `heartbeat_s`
    anew, `global_s` at most.
    """

    name: str
    heartbeat_s: int
    global_s: int


class LifecycleHooks:
    """The hooks that hold this instance while its group ends it.

    Every call raises Unavailable (or AccessDenied) when AWS does not answer; all may be made again.
    """

    def __init__(self, autoscaling: AutoScalingClient, *, group: str, instance_id: str) -> None:
        self._autoscaling = autoscaling
        self._group = group
        self._instance_id = instance_id

    def ours(self) -> tuple[Hook, ...]:
        """Return the hooks that are ours to answer: the group's only one, else those named ``sd-scheduler...``."""
        with understood(f"describing the lifecycle hooks of {self._group}"):
            answer = self._autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=self._group)
            told = answer.get("LifecycleHooks", [])
            hooks = [_read_hook(hook) for hook in told if hook["LifecycleTransition"] == TERMINATING]
        if len(hooks) > 1:
            hooks = [hook for hook in hooks if hook.name.startswith(OUR_PREFIX)]
        return tuple(hooks)

    def keep_waiting(self, *, since_s: float, now_s: float) -> float | None:
        """Make the group wait on; return until when it does, epoch seconds, or None when nothing of ours waits.

        `since_s` is when the instance was told to end. To be called again well before the time returned. Of several
        hooks the first to run out decides, for by default that one abandons the others.
        """
        waiting = [hook for hook in self.ours() if self._answer(hook, is_done=False)]
        return min((min(now_s + hook.heartbeat_s, since_s + hook.global_s) for hook in waiting), default=None)

    def let_go(self) -> bool:
        """Tell the group that nothing is left to wait for; True if something of ours waited."""
        waited = [self._answer(hook, is_done=True) for hook in self.ours()]
        return any(waited)

    def _answer(self, hook: Hook, *, is_done: bool) -> bool:
        """Answer one hook; False when it does not wait for this instance, not yet or not any more."""
        with understood(f"answering the lifecycle hook {hook.name} of {self._group}"):
            try:
                if is_done:
                    self._autoscaling.complete_lifecycle_action(
                        LifecycleHookName=hook.name,
                        AutoScalingGroupName=self._group,
                        InstanceId=self._instance_id,
                        LifecycleActionResult="CONTINUE",
                    )
                else:
                    self._autoscaling.record_lifecycle_action_heartbeat(
                        LifecycleHookName=hook.name, AutoScalingGroupName=self._group, InstanceId=self._instance_id
                    )
            except ClientError as error:
                if code_of(error) == "ValidationError" and NOT_WAITING in str(error):
                    return False
                raise
            return True


def _read_hook(told: LifecycleHookTypeDef) -> Hook:
    heartbeat_s = told.get("HeartbeatTimeout", DEFAULT_HEARTBEAT_S)
    global_s = told.get("GlobalTimeout", min(MOST_WAIT_S, MOST_HEARTBEATS * heartbeat_s))
    return Hook(name=told["LifecycleHookName"], heartbeat_s=heartbeat_s, global_s=global_s)
