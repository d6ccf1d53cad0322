"""What the checks of doctor share: findings, and a way to ask AWS that tells refusals from other failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError, NoCredentialsError
from botocore.parsers import ResponseParserError

from scheduler.aws.answers import UNREADABLE
from scheduler.aws.errors import DENIED, code_of
from scheduler.domain.ports import Clock
from scheduler.domain.skew import SkewBounds

BAD_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
GARBLED = "the answer was not in AWS's form"
MAX_CHARS = 300
"""Of what AWS, or whatever answers in its place, says in an error."""
NOT_A_WORKERS = "these credentials may not ask; a worker's need not"
POLICY_COMMAND = "sd-scheduler doctor --print-policy"

_Answer = TypeVar("_Answer", bound=Mapping[str, Any])
_Read = TypeVar("_Read")


class Verdict(StrEnum):
    """What a check came to; only `fail` makes doctor fail."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: what was looked at, what was found, and what a person should do about it."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check=check, verdict=Verdict.OK, found=found)


def warn(check: str, found: str, advice: str) -> Finding:
    """It works, but not as well as it should."""
    return Finding(check=check, verdict=Verdict.WARN, found=found, advice=advice)


def fail(check: str, found: str, advice: str) -> Finding:
    """The daemon would not work, or would lose work."""
    return Finding(check=check, verdict=Verdict.FAIL, found=found, advice=advice)


def skipped(check: str, found: str, advice: str = "") -> Finding:
    """It was not checked, and `found` says why."""
    return Finding(check=check, verdict=Verdict.SKIPPED, found=found, advice=advice)


class NotAnswered(Exception):
    """AWS gave no answer to work with. `code` is its error code, empty when it gave none of its own."""

    def __init__(self, error: Exception) -> None:
        is_told = isinstance(error, (ClientError, BotoCoreError))
        super().__init__(" ".join(str(error).split())[:MAX_CHARS] if is_told else GARBLED)
        self.answer: Mapping[str, Any] = error.response if isinstance(error, ClientError) else {}
        self.code = code_of(error) if isinstance(error, ClientError) else ""
        self.has_bad_credentials = self.code in BAD_CREDENTIALS or isinstance(
            error, (NoCredentialsError, CredentialRetrievalError)
        )
        self.is_denied = self.code in DENIED and not self.has_bad_credentials

    def finding(self, check: str, *, action: str, arn: str) -> Finding:
        """Return the failed check of a call that the daemon must be able to make."""
        if self.is_denied:
            return fail(check, f"refused: {self}", f"allow {action} on {arn}; {POLICY_COMMAND} prints the whole policy")
        if self.has_bad_credentials:
            return fail(check, str(self), "renew the credentials, or give the instance its role")
        return fail(check, str(self), "see whether AWS is reached: network, aws_region, AWS_ENDPOINT_URL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Asks AWS, and learns from the dates of the answers how far this host's clock is off."""

    clock: Clock
    skew: SkewBounds = field(default_factory=SkewBounds)

    def ask(self, call: Callable[[], _Answer]) -> _Answer:
        """Return the answer to `call`. Raises NotAnswered."""
        sent_at_s = self.clock.now()
        try:
            answer = call()
        except ClientError as error:
            self._learn(error.response, sent_at_s)
            raise NotAnswered(error) from error
        except (BotoCoreError, ResponseParserError, *UNREADABLE) as error:  # botocore's own stumbles are among the last
            raise NotAnswered(error) from error
        self._learn(answer, sent_at_s)
        return answer

    def read(self, call: Callable[[], _Answer], reader: Callable[[_Answer], _Read]) -> _Read:
        """Return what `reader` makes of the answer to `call`. Raises NotAnswered, too, for one that it cannot read."""
        answer = self.ask(call)
        try:
            return reader(answer)
        except UNREADABLE as error:
            raise NotAnswered(error) from error

    def _learn(self, answer: Mapping[str, Any], sent_at_s: float) -> None:
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if date:
            self.skew.add(date, sent_at_s=sent_at_s, received_at_s=self.clock.now())

    def permission(
        self, check: str, call: Callable[[], _Answer], *, action: str, arn: str, proved_by: frozenset[str] = frozenset()
    ) -> Finding:
        """Find out whether a call is allowed; errors in `proved_by` are raised only to who may make it."""
        try:
            self.ask(call)
        except NotAnswered as error:
            if error.code not in proved_by:
                return error.finding(check, action=action, arn=arn)
        return ok(check, f"{action} is allowed")
