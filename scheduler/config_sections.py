"""Every setting there is: type, default, bounds and help text; where values come from is not known here."""

from __future__ import annotations

import shlex
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
)
from pydantic.fields import FieldInfo

from scheduler import config_syntax as syntax

_listed = PlainSerializer(", ".join, return_type=str)
Queues = Annotated[tuple[str, ...], BeforeValidator(syntax.comma_separated(syntax.queue)), _listed]
BaseUrls = Annotated[tuple[str, ...], BeforeValidator(syntax.comma_separated(syntax.base_url)), _listed]
Hosts = Annotated[tuple[str, ...], BeforeValidator(syntax.comma_separated(syntax.opened_host, least=0)), _listed]
Buckets = Annotated[tuple[str, ...], BeforeValidator(syntax.comma_separated(syntax.bucket, least=0)), _listed]
Words = Annotated[tuple[str, ...], BeforeValidator(syntax.words), PlainSerializer(shlex.join, return_type=str)]
_hidden = PlainSerializer(lambda secret: "***" if secret.get_secret_value() else "", return_type=str)
Login = Annotated[SecretStr, BeforeValidator(syntax.login), _hidden]
SigningSecret = Annotated[SecretStr, BeforeValidator(syntax.signing_secret), _hidden]
Flag = Annotated[bool, BeforeValidator(syntax.flag), PlainSerializer(lambda flag: str(flag).lower(), return_type=str)]
Steps = Annotated[
    tuple[tuple[int, int], ...], BeforeValidator(syntax.steps), PlainSerializer(syntax.shown_steps, return_type=str)
]
EngineLine = Annotated[syntax.EngineLine, BeforeValidator(syntax.engine), PlainSerializer(str, return_type=str)]
FLEETS = ("spot-fleet", "asg", "instance", "local")
POLICIES = ("backlog", "threshold", "step", "idle-stop")
PRESETS = ("thrifty", "balanced", "prompt")
Seconds = Annotated[float, PlainSerializer(lambda seconds: str(seconds).removesuffix(".0"), return_type=str)]
SecondsOrEmpty = Annotated[
    float | None,
    BeforeValidator(syntax.absent_when_empty),
    PlainSerializer(lambda seconds: "" if seconds is None else str(seconds).removesuffix(".0"), return_type=str),
]


class Section(BaseModel):
    """One section of the file. `also` maps other accepted names of keys to their own."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True)
    about: ClassVar[str]
    also: ClassVar[dict[str, str]] = {}
    open: ClassVar[FieldInfo | None] = None
    """What any key means, in a section whose keys are names that the user gives."""
    example: ClassVar[dict[str, str]] = {}
    """How such a section may be written."""

    def shown(self) -> dict[str, str]:
        """Return every value as it would be written in the file, secrets as ``***``."""
        return {key: str(value) for key, value in self.model_dump().items()}


class Aws(Section):
    """Where work comes from and results go to."""

    about: ClassVar[str] = (
        "Where tasks come from and results go to. Credentials are found as by every AWS tool (instance role, "
        "AWS_PROFILE, ...), and AWS_ENDPOINT_URL is honoured."
    )
    also: ClassVar[dict[str, str]] = {
        "region": "aws_region",
        "queue_url": "sqs_queue_url",
        "dynamodb_table_name": "dynamodb_table",
        "table_name": "dynamodb_table",
        "bucket_name": "s3_bucket",
        "cloudfront": "cloudfront_domain",
    }

    aws_region: Annotated[str, AfterValidator(syntax.region)] = Field(
        description="Region of the queue, the table and the bucket.", examples=["us-east-1"]
    )
    sqs_queue_url: Queues = Field(
        description="The queue that tasks come from, by URL or by name. Several, separated by commas, are served in "
        "order of priority. FIFO queues are not supported: a slow task would hold up all that follow it.",
        examples=["https://sqs.us-east-1.amazonaws.com/123456789012/sd-tasks"],
    )
    dynamodb_table: Annotated[str, AfterValidator(syntax.table)] = Field(
        description="Table of the task records: who works on what, what came of it.", examples=["sd-tasks"]
    )
    s3_bucket: Annotated[str, AfterValidator(syntax.bucket)] = Field(
        description="Bucket that the pictures are stored in.", examples=["example-sd-pictures"]
    )
    cloudfront_domain: Annotated[str, AfterValidator(syntax.domain)] = Field(
        "",
        description="Domain of the CloudFront distribution before the bucket: the addresses of pictures are "
        "https://DOMAIN/KEY, but for those published to SNS, which are S3 URIs always. When empty all are S3 URIs.",
    )


class SdApi(Section):
    """The Stable Diffusion WebUI on this host."""

    about: ClassVar[str] = "The Stable Diffusion WebUI of this host, started with --api."

    sd_api_base_url: BaseUrls = Field(
        ("http://127.0.0.1:7860",),
        description="Address of the WebUI's API. Several, separated by commas, are one engine each: one for every GPU.",
    )
    api_auth: Login = Field(
        SecretStr(""),
        description="user:password when the WebUI was started with --api-auth. It stays out of this file when given "
        "in the environment (SCHEDULER_SD_API_API_AUTH) or as ${VARIABLE}.",
    )
    restart_command: Words = Field(
        (),
        description="Command that restarts a hung engine, run without a shell, at most once in 10 minutes. When empty "
        "a hung engine makes the host unhealthy.",
    )


class Engines(Section):
    """Engines by the names under which tasks ask for them: every value is an `EngineLine`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, EngineLine] = Field(init=False)

    about: ClassVar[str] = (
        "Other engines of this host, each under the runtime's name by which tasks ask for it; case matters. A task that "
        "names none goes to the first engine that can run it: the WebUI of [sd_api], then these in their order. With an "
        "engine here, the WebUI of [sd_api] is there only if its sd_api_base_url is given. sdwebui, comfyui, job_api and "
        "legacy (a WebUI: messages of v1alpha1 ask for it) name engines of their kind only, and an address has one kind. "
        "In the environment, SCHEDULER_ENGINES_NAME means the name here that differs from it in case alone, else a new "
        "one in lower case."
    )
    open: ClassVar[FieldInfo | None] = FieldInfo(
        description="Runtime NAME: kind of the engine (sdwebui, comfyui, job_api), its address, and the command that "
        "restarts it when it hangs. Several addresses, separated by commas without spaces, are one engine each. With an "
        "engine here, the WebUI of [sd_api] is there only if its sd_api_base_url is given.",
        default=None,
    )
    example: ClassVar[dict[str, str]] = {"comfy": "comfyui http://127.0.0.1:8188 supervisorctl restart comfyui"}

    @property
    def lines(self) -> dict[str, syntax.EngineLine]:
        """Each runtime's line, in the order of the file."""
        return dict(self.__pydantic_extra__ or {})


class Scheduler(Section):
    """How the daemon works."""

    about: ClassVar[str] = "How the daemon works: pace, limits, stopping, and what it tells of itself."

    poll_interval: int = Field(
        10,
        ge=1,
        le=20,
        description="Seconds that one long poll waits for a message; one that arrives meanwhile comes at once, so a "
        "longer wait only saves requests.",
    )
    max_tasks_per_poll: int = Field(
        10,
        ge=1,
        le=10,
        description="Messages that one receive takes at most. Fewer are taken when fewer keep the engine busy, because "
        "a message held here is one that an idle host cannot take.",
    )
    task_deadline_s: Seconds = Field(
        600.0,
        gt=0,
        le=39600,
        allow_inf_nan=False,
        description="Seconds that a task may render; then it is interrupted and failed. 11 hours at most, because SQS "
        "lets nobody hold a message longer than 12.",
    )
    max_runs: int = Field(
        3, ge=1, le=100, description="Times that an engine may run a task whose runs break off, before it is failed."
    )
    stop_grace_s: int = Field(
        90,
        ge=1,
        le=3600,
        description="Seconds that the running task gets to finish when the daemon is told to stop; then it is "
        "interrupted and given back to the queue.",
    )
    memory_mb: int = Field(
        256,
        ge=16,
        description="Megabytes of requests and pictures held at a time between receiving and storing; above that no "
        "more work is begun.",
    )
    default_prefix: Annotated[str, AfterValidator(syntax.prefix)] = Field(
        "tasks", description="Beginning of the pictures' keys in the bucket, for tasks that name none themselves."
    )
    record_ttl_days: Annotated[int, AfterValidator(syntax.ttl_days)] = Field(
        90,
        description="Days that the record of a finished task is kept, at least 29: longer than any copy of its message, "
        "which may stay 14 days in the queue and 14 more in the dead-letter queue. A copy that outlived the "
        "record would be rendered again.",
    )
    max_pixels: int = Field(
        33_554_432,
        ge=4096,
        description="Pixels (width x height x pictures) that one task may ask for. More is refused before it is "
        "rendered, because it would not fit into memory.",
    )
    health_host: Annotated[str, AfterValidator(syntax.host)] = Field(
        "127.0.0.1",
        description="Address that GET /health and GET /metrics are served on. Neither asks for a password, so open it "
        "to a private network only.",
    )
    health_port: int = Field(8080, ge=0, le=65535, description="Port of the same; 0 takes any free one.")


class Inputs(Section):
    """Pictures that tasks name by address."""

    about: ClassVar[str] = (
        "Pictures that tasks name by address, http://, https:// or s3://, instead of sending them along. Only public "
        "addresses are gone to, and only listed buckets read, for whoever may send tasks could reach through this "
        "host what is closed to him otherwise."
    )

    allow_hosts: Hosts = Field(
        (),
        description="Private hosts that are opened all the same, separated by commas: names, IP addresses, either with "
        ":PORT, and networks such as 10.1.0.0/16. Link-local and metadata addresses stay closed whatever is listed.",
    )
    allow_buckets: Buckets = Field(
        (),
        description="Buckets that are read, separated by commas. When empty, s3_bucket alone; when not, that one too "
        "needs to be listed.",
    )
    max_bytes: int = Field(
        33_554_432,
        ge=1024,
        le=1 << 30,
        description="Bytes that one input may have; its pixels are bounded by max_pixels.",
    )
    timeout_s: Seconds = Field(
        20.0,
        gt=0,
        le=600,
        allow_inf_nan=False,
        description="Seconds within which one input must be there, all that it takes included.",
    )


class Notify(Section):
    """Who is told when a task has its end."""

    about: ClassVar[str] = (
        "Who is told when a task has its end, beside its record. The address of a webhook is given by the task, and "
        "stands under the rules of [inputs] allow_hosts."
    )

    sns_topic_arn: Annotated[str, AfterValidator(syntax.optional(syntax.topic))] = Field(
        "",
        description="Topic of SNS that every end is published to, in the words of Stable Diffusion on EKS; when empty, none.",
    )
    webhook_secret: SigningSecret = Field(
        SecretStr(""),
        description="What webhooks are signed with: 24 to 64 bytes in base64, with or without whsec_ before it. When empty "
        "they are sent unsigned. It stays out of this file when given in the environment (SCHEDULER_NOTIFY_WEBHOOK_SECRET) "
        "or as ${VARIABLE}.",
    )


def _fleet_id(text: str, info: ValidationInfo) -> str:
    return syntax.fleet_id(text, info.data.get("fleet", ""), needed=bool(info.data.get("enabled")))


def _not_below_minimum(capacity: int, info: ValidationInfo) -> int:
    if capacity < info.data.get("min_capacity", 0):
        raise ValueError(f"expected at least min_capacity, which is {info.data['min_capacity']}")
    return capacity


class Autoscaling(Section):
    """How large the fleet is kept."""

    about: ClassVar[str] = (
        "How many workers the fleet has. Every daemon runs the loop, one of them leads. With min_capacity = 0 nobody is "
        'left to begin again, so run "sd-scheduler autoscale --once" each minute elsewhere too. This section alone may '
        "be edited while the daemon runs: it is read again within seconds, and a faulty edit is refused in the log."
    )

    enabled: Flag = Field(default=False, description="Whether this daemon takes part: true or false.")
    fleet: Annotated[str, AfterValidator(syntax.one_of(*FLEETS))] = Field(
        "spot-fleet",
        description="What holds the workers: spot-fleet, asg (an Auto Scaling group), instance (one EC2 instance, "
        "started and stopped) or local (processes of this machine, in local mode).",
    )
    fleet_id: Annotated[str, AfterValidator(_fleet_id)] = Field(
        "",
        validate_default=True,
        description="Which one: sfr-..., the group's name, or i-...; required when enabled.",
    )
    state_table: Annotated[str, AfterValidator(syntax.optional(syntax.table))] = Field(
        "",
        description="Table of the workers' records and the leader's decisions; when empty, the name of dynamodb_table "
        "followed by -fleet.",
    )
    min_capacity: int = Field(0, ge=0, le=1000, description="Workers that are kept even when there is no work.")
    max_capacity: Annotated[int, AfterValidator(_not_below_minimum)] = Field(
        4, ge=1, le=1000, validate_default=True, description="Workers that there may be at most."
    )
    policy: Annotated[str, AfterValidator(syntax.one_of(*POLICIES))] = Field(
        "backlog",
        description="How the number of workers is decided: backlog (seconds of work against the wait that users accept), "
        "threshold (more above a queue length, fewer when it is empty), step (by steps of queue length) or idle-stop "
        "(one instance, stopped when idle). threshold is not the default because on real traffic it cost 1.7 times as "
        "much with 3.5 times as many late tasks.",
    )
    target_wait_s: Seconds = Field(
        60.0,
        ge=1,
        le=86400,
        allow_inf_nan=False,
        description="backlog: seconds that users accept to wait until their task starts.",
    )
    preset: Annotated[str, AfterValidator(syntax.one_of(*PRESETS))] = Field(
        "balanced",
        description="backlog: what an hour of an idle worker is worth against tasks that wait longer than that: thrifty, "
        "balanced or prompt.",
    )
    late_worth_s: SecondsOrEmpty = Field(
        None,
        ge=1,
        le=1_000_000,
        allow_inf_nan=False,
        description="backlog: the same as a number, in place of the preset: seconds that a worker may idle to spare one "
        "task from waiting longer. Empty: the preset's, 90, 300 or 2400.",
    )
    scale_out_threshold: int = Field(
        5, ge=0, le=1_000_000, description="threshold: waiting messages above which workers are added."
    )
    scale_out_step: int = Field(1, ge=1, le=1000, description="threshold: workers added at a time.")
    scale_in_step: int = Field(
        1,
        ge=1,
        le=1000,
        description="threshold, step: workers taken away at a time, once nothing waits and nothing is under way.",
    )
    cooldown_s: Seconds = Field(
        300.0,
        ge=0,
        le=86400,
        allow_inf_nan=False,
        description="threshold, step: seconds after a change before the next.",
    )
    steps: Steps = Field(
        ((10, 1), (50, 2), (100, 3)),
        description="step: waiting messages and how many workers they add, as MESSAGES:WORKERS, separated by commas; "
        "from each number of messages on, to the next.",
    )
    idle_stop_minutes: Seconds = Field(
        30.0,
        gt=0,
        le=10080,
        allow_inf_nan=False,
        description="idle-stop: minutes without work after which the instance is stopped.",
    )
    stuck_minutes: Seconds = Field(
        30.0,
        ge=0,
        le=10080,
        allow_inf_nan=False,
        description="Minutes that a task may run on after its own deadline, or a single instance be unable to work, before "
        "the worker is ended under it; 0 never ends it.",
    )


SECTIONS: dict[str, type[Section]] = {
    "aws": Aws,
    "sd_api": SdApi,
    "engines": Engines,
    "scheduler": Scheduler,
    "inputs": Inputs,
    "notify": Notify,
    "autoscaling": Autoscaling,
}


def is_secret(info: FieldInfo) -> bool:
    """Tell whether a setting's value may be shown to nobody."""
    return info.annotation is SecretStr


def is_list(info: FieldInfo) -> bool:
    """Tell whether a setting takes several values, separated by commas or line ends."""
    return _listed in info.metadata


def bounds(info: FieldInfo) -> str:
    """Return what numbers a setting takes, such as `a whole number from 1 to 20`; empty when it is no number."""
    if info.annotation not in {int, float, float | None}:
        return ""
    words = ["a whole number" if info.annotation is int else "a number"]
    for name, word in (("ge", "from"), ("gt", "above"), ("le", "to")):
        limit: list[Any] = [getattr(rule, name) for rule in info.metadata if hasattr(rule, name)]
        words += [f"{word} {value}" for value in limit]
    return " ".join(words) + (", or nothing" if info.annotation == float | None else "")


def samples(model: type[Section]) -> dict[str, str]:
    """Return a section as it would be written: examples where a value is required, else the defaults."""
    examples = {
        key: info.examples[0] for key, info in model.model_fields.items() if info.is_required() and info.examples
    }
    return model.model_validate(examples | model.example).shown()
