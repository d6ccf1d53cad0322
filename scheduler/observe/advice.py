"""What a person may do about an error of AWS's: one sentence, for log lines and commands; pure."""

from __future__ import annotations

from scheduler.domain.errors import AccessDenied, SchedulerError, Unavailable

DENIED = "check the instance's role or the credentials; sd-scheduler doctor tries each permission"
UNREACHABLE = (
    "AWS is not reached: check the network (route, DNS, proxy), aws_region and AWS_ENDPOINT_URL; "
    "sd-scheduler doctor tries each service"
)
MISSING = "check the names and aws_region in [aws]; sd-scheduler setup makes what is not there"
_NOT_REACHED = ("endpoint URL", "proxy URL", "SSL validation failed")
_NOT_THERE = ("NonExistentQueue", "QueueDoesNotExist", "ResourceNotFoundException", "NoSuchBucket")


def advice_for(error: SchedulerError) -> str | None:
    """Return what to check, None where the error itself says all that is known.

    botocore's words are what tells a network that is down from an answer that AWS gave: each kind of its connection
    errors names the endpoint's URL.
    """
    if isinstance(error, AccessDenied):
        return DENIED
    if not isinstance(error, Unavailable):
        return None
    if any(words in error.message for words in _NOT_THERE):
        return MISSING
    return UNREACHABLE if any(words in error.message for words in _NOT_REACHED) else None
