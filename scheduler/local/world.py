"""Local mode's world: moto, the stand-ins for engines, the resources and a configuration, all on loopback and under
`.local/`.

Only endpoints differ from a real instance: the scheduler that runs in it is the very one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from scheduler.aws import operator_clients
from scheduler.aws.addresses import Account
from scheduler.aws.making import CHANGES, Making
from scheduler.aws.resources import set_up
from scheduler.domain.errors import Fatal
from scheduler.local.comfy.process import ComfyOptions, ComfyProcess
from scheduler.local.jobapi.process import JobApiOptions, JobApiProcess
from scheduler.local.serving.announcing import announced
from scheduler.local.standin.process import StandinOptions, StandinProcess

REGION, ACCOUNT = "us-east-1", "123456789012"
QUEUE, TABLE, BUCKET = "sd-tasks", "sd-tasks", "sd-images"
KEPT_SECTIONS = ("inputs", "notify")
"""What a person may want to try here: edits of it outlast the next start, at which the daemon reads them."""
CONFIG = """\
# Written by `sd-scheduler local` at its start, which alone it is read at by the daemon. It keeps [inputs] and [notify]
# as they are edited here, and writes the rest anew: to try them, stop it, edit, and start it again.
[aws]
aws_region = {region}
sqs_queue_url = {queue}
dynamodb_table = {table}
s3_bucket = {bucket}

[sd_api]
sd_api_base_url = {engine}

[engines]
comfyui = comfyui {comfy}
job_api = job_api {jobs}

[scheduler]
poll_interval = 2
stop_grace_s = 20
health_port = {health_port}

"""
TO_EDIT = """\
[inputs]
#allow_hosts = 127.0.0.1:8009

[notify]
#sns_topic_arn = arn:aws:sns:us-east-1:123456789012:ends
"""


class LocalWorld:
    """A context manager: on entry everything is up and `os.environ` points at it; on exit nothing is left running."""

    def __init__(self, folder: Path, *, seconds_per_step: float, switch_s: float, health_port: int) -> None:
        self.folder = folder
        self.config = folder / "conf.ini"
        self.environment_file = folder / "environment"
        self.endpoint = ""
        self._health_port = health_port
        self._clients: operator_clients.OperatorClients | None = None
        self._lock: TextIO | None = None
        self._emulator: subprocess.Popen[bytes] | None = None
        self.engine = StandinProcess(StandinOptions(seconds_per_step=seconds_per_step, switch_seconds=switch_s))
        self.comfy = ComfyProcess(
            ComfyOptions(seconds_per_step=seconds_per_step, switch_seconds=switch_s, previews=True)
        )
        self.jobs: JobApiProcess | None = None
        self._seconds_per_step = seconds_per_step

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise Fatal(f"another `sd-scheduler local` runs in {self.folder.resolve()}: stop it first") from error
        try:
            self.engine.start()
            self.comfy.start()
            self.endpoint = self._start_emulator()
            environment = self._environment()
            os.environ.update(environment)
            self._create()
            self.jobs = JobApiProcess(
                JobApiOptions(bucket=BUCKET, s3_endpoint=self.endpoint, seconds_per_step=self._seconds_per_step)
            )
            self.jobs.start()
            self._write(environment)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self.environment_file.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()  # which lets go of it
        for standin in (self.engine, self.comfy, self.jobs):
            if standin is not None:
                standin.kill()
        if self._emulator is not None:
            self._emulator.kill()
            self._emulator.wait()
            for pipe in (self._emulator.stdin, self._emulator.stdout):
                if pipe is not None:
                    pipe.close()

    def _start_emulator(self) -> str:
        """Start moto as a child that ends with this process, and return its address. Raises Fatal."""
        self._emulator = subprocess.Popen(
            [sys.executable, "-m", "scheduler.local.emulator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for this process, which then stops that one
        )
        address = announced(self._emulator)
        if address is None:
            raise Fatal("the AWS emulator did not start: is the `local` dependency group installed (make install)?")
        return address

    def _environment(self) -> Mapping[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _write(self, environment: Mapping[str, str]) -> None:
        edited = kept_sections(self.config.read_text(errors="replace")) if self.config.exists() else ""
        self.config.write_text(
            CONFIG.format(
                region=REGION,
                queue=QUEUE,
                table=TABLE,
                bucket=BUCKET,
                engine=self.engine.base_url,
                comfy=self.comfy.base_url,
                jobs=self.jobs.base_url if self.jobs else "",
                health_port=self._health_port,
            )
            + (edited or TO_EDIT)
        )
        self.environment_file.write_text("".join(f"{name}={value}\n" for name, value in environment.items()))

    def _create(self) -> None:
        self._clients = operator_clients.build(REGION)
        making = Making(clients=self._clients, account=Account(number=ACCOUNT, region=REGION))
        for outcome in set_up(making, queues=[QUEUE], table=TABLE, bucket=BUCKET):
            if outcome.state not in CHANGES:
                raise Fatal(f"{outcome.resource}: {outcome.told} {outcome.detail}")

    def fetch(self, key: str) -> bytes:
        """Return the object under `key` of the local bucket."""
        if self._clients is None:
            raise Fatal("local mode is not up")
        body = self._clients.s3.get_object(Bucket=BUCKET, Key=key)["Body"]
        with body:
            return body.read()

    def clear_pictures(self) -> Path:
        """Return the folder for pictures, empty."""
        folder = self.folder / "images"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


def kept_sections(config: str) -> str:
    """Return those sections of a configuration's text that outlast a start, as they stand there, comments included."""
    sections = re.split(r"^(?=\[)", config, flags=re.MULTILINE)
    return "".join(
        f"{text.rstrip()}\n\n" for text in sections if text.startswith(tuple(f"[{name}]" for name in KEPT_SECTIONS))
    )
