"""What a setting's text must look like: functions from text to value whose ValueError says what would be right.

No message repeats the text; whoever reports it decides how much of it may be shown.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import SplitResult, urlsplit

from scheduler.domain.destinations import read_opening
from scheduler.domain.keys import MAX_PREFIX_CHARS, clean_prefix
from scheduler.wire import webhook

MIN_TTL_DAYS = 29
ENGINE_KINDS = ("sdwebui", "comfyui", "job_api")
RUNTIME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RIGHT_RUNTIME = "expected letters, digits, '.', '_' and '-', at most 64, a letter or digit first"
_REGION = re.compile(r"[a-z]{2,5}(-[a-z]+){1,3}-[0-9]{1,2}")
_QUEUE = re.compile(r"[A-Za-z0-9_-]{1,80}")
_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_BUCKET = re.compile(r"[a-z0-9](?!.*\.\.)[a-z0-9.-]{1,61}[a-z0-9]")
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_ADDRESS = re.compile(r",|https?://", re.IGNORECASE)
_PREFIX = re.compile(r"[A-Za-z0-9._/-]*")
FLEET_IDS = {
    "spot-fleet": (re.compile(r"sfr-[0-9a-f-]{8,40}"), "the id of a Spot Fleet request: sfr-..."),
    "asg": (re.compile(r"[^:\s]{1,255}"), "the name of an Auto Scaling group"),
    "instance": (re.compile(r"i-[0-9a-f]{8,17}"), "the id of an instance: i-..."),
    "local": (re.compile(r"http://127\.0\.0\.1:[0-9]{1,5}"), "the address of the local fleet: http://127.0.0.1:PORT"),
}
"""How each kind of fleet is named, as a pattern and in words."""


def comma_separated(one: Callable[[str], str], *, least: int = 1) -> Callable[[str], tuple[str, ...]]:
    """Return a reader of at least `least` items, each read by `one`, none twice; line ends separate as commas do."""

    def read(text: str) -> tuple[str, ...]:
        items = [item.strip() for item in re.split(r"[,\n]", text) if item.strip()]
        if len(items) < least:
            raise ValueError("it must not be empty")
        values: list[str] = []
        for number, item in enumerate(items, start=1):
            try:
                values.append(one(item))
            except ValueError as error:
                where = f"item {number}: " if len(items) > 1 else ""
                raise ValueError(f"{where}{error}") from None
            if values.index(values[-1]) != number - 1:
                raise ValueError(f"item {number}: the same as item {values.index(values[-1]) + 1}")
        return tuple(values)

    return read


def region(text: str) -> str:
    """Read the name of an AWS region."""
    return _matching(_REGION, text, "expected an AWS region such as us-east-1")


def queue(text: str) -> str:
    """Read one queue's URL or name."""
    right = "expected a queue's URL (https://sqs.REGION.amazonaws.com/ACCOUNT/NAME) or its name (1 to 80 of A-Z a-z 0-9 _ -)"
    if text.endswith(".fifo"):
        raise ValueError("FIFO queues are not supported: name a standard queue")
    if "/" not in text:
        return _matching(_QUEUE, text, right)
    parts = _http_url(text, right).path.split("/")
    if len(parts) != 3 or not parts[1]:
        raise ValueError(right)
    _matching(_QUEUE, parts[2], right)
    return text


def table(text: str) -> str:
    """Read the name of a DynamoDB table."""
    return _matching(_TABLE, text, "expected a table's name: 3 to 255 of A-Z a-z 0-9 _ . -")


def bucket(text: str) -> str:
    """Read the name of an S3 bucket."""
    right = (
        "expected a bucket's name, without s3://: 3 to 63 of a-z 0-9 . -, beginning and ending with a letter or digit"
    )
    if re.fullmatch(r"[0-9.]+", text):
        raise ValueError(f"{right}, and not in the form of an IP address")
    return _matching(_BUCKET, text, right)


def domain(text: str) -> str:
    """Read a domain, bare or as ``https://domain/``; empty stays empty."""
    bare = re.sub(r"^https://|/$", "", text)
    return bare and _matching(_HOST, bare, "expected a domain without a path, such as d111111abcdef8.cloudfront.net")


def base_url(text: str) -> str:
    """Read the address of an API; a slash at its end is dropped."""
    right = "expected an address such as http://127.0.0.1:7860, without query"
    _http_url(text, right)
    return text.rstrip("/")


@dataclass(frozen=True, slots=True)
class EngineLine:
    """What stands beside a runtime's name: the kind of its engines, their addresses, how to restart a hung one."""

    kind: str
    base_urls: tuple[str, ...]
    restart_command: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.kind, ",".join(self.base_urls), shlex.join(self.restart_command))).rstrip()


def engine(text: str) -> EngineLine:
    """Read ``kind URL[,URL...] [restart command]``."""
    kind, urls, *command = [*words(text), "", ""]
    if kind not in ENGINE_KINDS or not urls:
        kinds = ", ".join(ENGINE_KINDS)
        raise ValueError(f"expected KIND URL, such as comfyui http://127.0.0.1:8188; kinds are {kinds}")
    if urls.endswith(",") or _ADDRESS.match(command[0]):
        raise ValueError(
            "a second address stands where the restart command belongs: give each engine a name of its own, or, for engines "
            "that share the tasks of one name, write KIND URL,URL with commas and no spaces"
        )
    return EngineLine(kind, comma_separated(base_url)(urls), tuple(command[:-2]))


def login(text: str) -> str:
    """Read ``user:password``; empty stays empty."""
    user, colon, password = text.partition(":")
    if text and not (user and colon and password):
        raise ValueError("expected user:password")
    return text


def words(text: str) -> tuple[str, ...]:
    """Read a command line into its words by the shell's rules of quoting; empty stays empty."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"expected a command line: {str(error).lower()}") from None


def prefix(text: str) -> str:
    """Read the beginning of keys in the bucket; a slash at its end is dropped."""
    bare = text.removesuffix("/")
    if not _PREFIX.fullmatch(bare) or clean_prefix(bare) != bare:
        raise ValueError(
            f"expected at most {MAX_PREFIX_CHARS} of A-Z a-z 0-9 . _ - /, no / at the beginning, no part empty, . or .."
        )
    return bare


def topic(text: str) -> str:
    """Read the ARN of a topic of SNS."""
    right = "expected the ARN of a topic, such as arn:aws:sns:us-east-1:123456789012:sd-results"
    if text.endswith(".fifo"):
        raise ValueError(f"{right}; a FIFO topic does not do")
    return _matching(_TOPIC, text, right)


def signing_secret(text: str) -> str:
    """Read what webhooks are signed with; empty stays empty."""
    if text:
        webhook.key_of(text)
    return text


def host(text: str) -> str:
    """Read a host's name or address to listen on."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return _matching(_HOST, text, "expected a host name or an IP address, such as 127.0.0.1")


def opened_host(text: str) -> str:
    """Read an entry of a list of hosts that are opened: a name or an address, either with a port, or a network."""
    read_opening(text)
    return text


def flag(text: object) -> bool:
    """Read true or false, in the words that INI files use."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    known = words.get(str(text).strip().lower())
    if known is None:
        raise ValueError("expected true or false")
    return known


def one_of(*names: str) -> Callable[[str], str]:
    """Return a reader of one of `names`."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return text

    return read


def optional(read: Callable[[str], str]) -> Callable[[str], str]:
    """Return a reader that leaves empty what is empty."""
    return lambda text: text and read(text)


def absent_when_empty(value: object) -> object:
    """Return None for an empty text, anything else as it is: for numbers that need not be given."""
    return None if value == "" else value


def steps(text: str | Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Read pairs ``MESSAGES:WORKERS``, separated by commas, each of more messages than the one before."""
    if not isinstance(text, str):
        return tuple(text)
    right = "expected MESSAGES:WORKERS pairs with rising numbers of messages, such as 10:1, 50:2, 100:3"
    items = [item.strip() for item in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,7}\s*:\s*[0-9]{1,4}", item) for item in items):
        raise ValueError(right)
    pairs = tuple((int(item.partition(":")[0]), int(item.partition(":")[2])) for item in items)
    if any(workers < 1 for _, workers in pairs) or any(a[0] >= b[0] for a, b in pairwise(pairs)):
        raise ValueError(right)
    return pairs


def shown_steps(pairs: Iterable[tuple[int, int]]) -> str:
    """Return steps as they are written."""
    return ", ".join(f"{messages}:{workers}" for messages, workers in pairs)


def fleet_id(text: str, fleet: str, *, needed: bool) -> str:
    """Read the name of a fleet of the kind `fleet`; empty is right unless it is `needed`."""
    pattern, right = FLEET_IDS.get(fleet, FLEET_IDS["asg"])
    if not text and not needed:
        return text
    return _matching(pattern, text, f"expected {right}")


def ttl_days(days: int) -> int:
    """Check that a record outlives every copy of its message."""
    if days < MIN_TTL_DAYS:
        raise ValueError(
            f"expected a whole number from {MIN_TTL_DAYS}: a record must outlive every copy of its message, which SQS keeps "
            "up to 14 days in the queue and 14 more in the dead-letter queue; a copy that outlived it would be rendered again"
        )
    return days


def _matching(pattern: re.Pattern[str], text: str, right: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(right)
    return text


def _http_url(text: str, right: str) -> SplitResult:
    try:
        url = urlsplit(text)
        known = url.port != 0 and url.hostname  # `port` raises when it is no number below 65536
    except ValueError:
        known = None
        url = SplitResult("", "", "", "", "")
    if "@" in url.netloc:
        raise ValueError(f"{right}, and without user and password")
    if url.scheme not in {"http", "https"} or not known or re.search(r"[\s?#\\]", text):
        raise ValueError(right)
    return url
