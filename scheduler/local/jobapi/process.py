"""The job API's stand-in as a child process, for tests and local mode."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.local.serving.child import ChildServer


@dataclass(frozen=True, slots=True, kw_only=True)
class JobApiOptions:
    """What it is started with; see `python -m scheduler.local.jobapi --help`."""

    bucket: str
    s3_endpoint: str | None = None
    seconds_per_step: float = 0.05

    def arguments(self) -> list[str]:
        """Return them as the command line takes them."""
        return [
            f"--bucket={self.bucket}",
            *([f"--s3-endpoint={self.s3_endpoint}"] if self.s3_endpoint else []),
            f"--seconds-per-step={self.seconds_per_step}",
        ]


class JobApiProcess(ChildServer):
    """One stand-in of its own; see `ChildServer`. When it is started again it knows no earlier job."""

    module = "scheduler.local.jobapi"

    def __init__(self, options: JobApiOptions) -> None:
        super().__init__(options.arguments())
