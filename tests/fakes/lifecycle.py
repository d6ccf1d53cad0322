"""An Auto Scaling group's hooks for instances that end, behind the service's own wire format: moto keeps hooks, but
nothing ever waits for them, and it knows neither their completion nor their heartbeats.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from fakes.clock import FakeClock
from fakes.endpoint import Reply, endpoint

_NAMESPACE = "http://autoscaling.amazonaws.com/doc/2011-01-01/"


@dataclass(slots=True, kw_only=True)
class Hooked:
    """A hook; while it waits for an instance, until when and how long at most (epoch seconds)."""

    name: str
    heartbeat_s: int
    transition: str = "autoscaling:EC2_INSTANCE_TERMINATING"
    waits_until_s: float | None = None
    waits_at_most_s: float = 0.0
    most_s: float | None = None
    """For how long it waits at all, where that is less than AWS would."""
    result: str | None = None

    @property
    def limit_s(self) -> float:
        return self.most_s or min(172_800, 100 * self.heartbeat_s)


class FakeLifecycle:
    """One group with one instance."""

    def __init__(self, clock: FakeClock, *, group: str = "sd-workers", instance_id: str = "i-1") -> None:
        self.group = group
        self.instance_id = instance_id
        self.hooks: dict[str, Hooked] = {}
        self.refusal: tuple[str, str] | None = None
        """Code and message of every answer, while set."""
        self._clock = clock

    def add(self, name: str, heartbeat_s: int, *, transition: str | None = None, most_s: float | None = None) -> Hooked:
        """Add a hook; `most_s` is for how long it waits at all, where that is less than AWS would."""
        hook = self.hooks[name] = Hooked(name=name, heartbeat_s=heartbeat_s, most_s=most_s)
        if transition is not None:
            hook.transition = transition
        return hook

    def end_instance(self) -> None:
        """Begin to end the instance: it waits for every hook."""
        now_s = self._clock.now()
        for hook in self.hooks.values():
            hook.waits_until_s = now_s + hook.heartbeat_s
            hook.waits_at_most_s = now_s + hook.limit_s

    @property
    def is_gone(self) -> bool:
        """Whether nothing makes the instance wait any more."""
        return not any(self._waits(hook) for hook in self.hooks.values())

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Serve as an endpoint of Auto Scaling; yield its URL."""
        with endpoint(lambda _method, _path, body: self._respond(body)) as url:
            yield url

    def _waits(self, hook: Hooked) -> bool:
        return hook.waits_until_s is not None and self._clock.now() < hook.waits_until_s

    def _respond(self, body: bytes) -> Reply:
        asked = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if self.refusal is not None:
            return _error(*self.refusal)
        match asked["Action"]:
            case "DescribeLifecycleHooks":
                return self._describe(asked)
            case "CompleteLifecycleAction" | "RecordLifecycleActionHeartbeat" as action:
                return self._answered(action, asked)
            case action:
                return _error("InvalidAction", f"no {action} here")

    def _describe(self, asked: Mapping[str, str]) -> Reply:
        if asked["AutoScalingGroupName"] != self.group:
            return _error("ValidationError", "AutoScalingGroup name not found - null")
        members = "".join(
            f"<member><LifecycleHookName>{hook.name}</LifecycleHookName>"
            f"<AutoScalingGroupName>{self.group}</AutoScalingGroupName>"
            f"<LifecycleTransition>{hook.transition}</LifecycleTransition>"
            f"<HeartbeatTimeout>{hook.heartbeat_s}</HeartbeatTimeout>"
            f"<GlobalTimeout>{hook.limit_s:.0f}</GlobalTimeout>"
            "<DefaultResult>ABANDON</DefaultResult></member>"
            for hook in self.hooks.values()
        )
        return _answer("DescribeLifecycleHooks", f"<LifecycleHooks>{members}</LifecycleHooks>")

    def _answered(self, action: str, asked: Mapping[str, str]) -> Reply:
        hook = self.hooks.get(asked["LifecycleHookName"])
        if hook is None or not self._waits(hook) or asked["InstanceId"] != self.instance_id:
            return _error("ValidationError", f"No active Lifecycle Action found with instance ID {asked['InstanceId']}")
        if action == "CompleteLifecycleAction":
            hook.waits_until_s = None
            hook.result = asked["LifecycleActionResult"]
        else:
            hook.waits_until_s = min(self._clock.now() + hook.heartbeat_s, hook.waits_at_most_s)
        return _answer(action, "")


def _answer(action: str, inside: str) -> Reply:
    text = f'<{action}Response xmlns="{_NAMESPACE}"><{action}Result>{inside}</{action}Result></{action}Response>'
    return 200, text.encode()


def _error(code: str, message: str) -> Reply:
    text = f'<ErrorResponse xmlns="{_NAMESPACE}"><Error><Type>Sender</Type><Code>{code}</Code>'
    return 400, f"{text}<Message>{message}</Message></Error></ErrorResponse>".encode()
