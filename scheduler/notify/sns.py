"""The topic of SNS that ends are published to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from scheduler.aws.answers import understood
from scheduler.aws.errors import code_of
from scheduler.domain.errors import Unstorable

MAX_MESSAGE_BYTES = 256 * 1024
"""SNS's own limit, attributes included."""
ID_ATTRIBUTE = "announcement_id"


class SnsTopic:
    """The `Topic` port: one topic, by its ARN. `client` is boto3's for the topic's region."""

    def __init__(self, client: Any, arn: str) -> None:
        self._client = client
        self._arn = arn

    def publish(self, message: Mapping[str, Any], *, named: str | None) -> None:
        """Publish `message` as JSON, with `named` in an attribute. Raises as the port says."""
        text = json.dumps(message)
        doing = f"publishing to {self._arn}"
        attributes = {ID_ATTRIBUTE: {"DataType": "String", "StringValue": named}} if named else {}
        if len(text) + sum(len(part) for part in (ID_ATTRIBUTE, "String", named or "")) > MAX_MESSAGE_BYTES:
            raise Unstorable(f"{doing}: {len(text)} bytes; {MAX_MESSAGE_BYTES} are the most")
        with understood(doing):
            try:
                answer = self._client.publish(TopicArn=self._arn, Message=text, MessageAttributes=attributes)
            except ClientError as error:
                # Also said of a topic that is none, which a person can mend; of the message it is for good.
                if code_of(error).startswith("InvalidParameter") and "message" in str(error).lower():
                    raise Unstorable(f"{doing}: {error}") from error
                raise
            answer["MessageId"]  # an answer without one is none of SNS's
