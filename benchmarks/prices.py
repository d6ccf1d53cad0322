"""What AWS calls cost by the list prices of us-east-1, on demand, as of November 2026: requests only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

USD_PER_MILLION = {
    "SQS request (64 KB)": 0.40,
    "DynamoDB write (1 KB)": 0.625,
    "DynamoDB read (4 KB)": 0.125,
    "S3 PUT, COPY, POST, LIST": 5.00,
    "S3 GET, HEAD": 0.40,
    "SNS publish": 0.50,
}
_READS = {"GetItem", "BatchGetItem", "Query", "Scan", "TransactGetItems"}
_WRITES = {"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"}
_LIKE_PUT = {"PutObject", "PostObject", "UploadPart", "ListObjects"}


def item_bytes(item: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the size that DynamoDB bills an item by: names and values, in its own notation."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode(errors="surrogatepass"))
        case "N":
            return 1 + math.ceil(len(content.strip("-").replace(".", "")) / 2)
        case "B":
            return len(content)
        case "M":
            return 3 + sum(1 + len(name.encode()) + _value_bytes(inner) for name, inner in content.items())
        case "L":
            return 3 + sum(1 + _value_bytes(inner) for inner in content)
        case "SS" | "NS" | "BS":
            return sum(map(len, content))
        case _:  # BOOL, NULL
            return 1


def usd_per_million(service: str, operation: str, units: float, *, write_units: float, read_units: float) -> float:
    """Return USD for a million calls like this one; `write_units` and `read_units` are those of the mean item."""
    match service:
        case "sqs":
            return units * USD_PER_MILLION["SQS request (64 KB)"]
        case "sns":
            return units * USD_PER_MILLION["SNS publish"]
        case "dynamodb" if operation in _WRITES:
            return units * write_units * USD_PER_MILLION["DynamoDB write (1 KB)"]
        case "dynamodb" if operation in _READS:
            return units * read_units * USD_PER_MILLION["DynamoDB read (4 KB)"]
        case "s3" if operation in _LIKE_PUT:
            return USD_PER_MILLION["S3 PUT, COPY, POST, LIST"]
        case "s3" if operation != "DeleteObject":
            return USD_PER_MILLION["S3 GET, HEAD"]
        case _:  # DescribeTable and the like are free
            return 0.0
