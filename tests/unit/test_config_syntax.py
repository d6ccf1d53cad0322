"""The form of each kind of value: what is taken, as what, and what is refused in which words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler import config_syntax as syntax
from scheduler.domain.keys import clean_prefix

QUEUES = syntax.comma_separated(syntax.queue)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (syntax.region, "us-east-1", "us-east-1"),
        (syntax.region, "us-gov-west-1", "us-gov-west-1"),
        (syntax.region, "ap-southeast-5", "ap-southeast-5"),
        (syntax.region, "eusc-de-east-1", "eusc-de-east-1"),
        (syntax.queue, "sd-tasks_2", "sd-tasks_2"),
        (syntax.queue, "http://127.0.0.1:5000/123456789012/q", "http://127.0.0.1:5000/123456789012/q"),
        (syntax.queue, "https://sqs.cn-north-1.amazonaws.com.cn/1/q", "https://sqs.cn-north-1.amazonaws.com.cn/1/q"),
        (QUEUES, "a", ("a",)),
        (QUEUES, " b , a,\n c,", ("b", "a", "c")),
        (syntax.table, "sd.tasks_1-x", "sd.tasks_1-x"),
        (syntax.bucket, "my.bucket-1", "my.bucket-1"),
        (syntax.domain, "", ""),
        (syntax.domain, "d1.cloudfront.net", "d1.cloudfront.net"),
        (syntax.domain, "https://d1.cloudfront.net/", "d1.cloudfront.net"),
        (syntax.base_url, "http://127.0.0.1:7860/", "http://127.0.0.1:7860"),
        (syntax.base_url, "https://[::1]:7860/sd", "https://[::1]:7860/sd"),
        (syntax.login, "", ""),
        (syntax.login, "user:pass:word", "user:pass:word"),
        (syntax.words, "", ()),
        (syntax.words, "supervisorctl restart 'sd webui'", ("supervisorctl", "restart", "sd webui")),
        (syntax.prefix, "", ""),
        (syntax.prefix, "a/b.c/", "a/b.c"),
        (syntax.host, "0.0.0.0", "0.0.0.0"),
        (syntax.host, "::1", "::1"),
        (syntax.host, "localhost", "localhost"),
        (syntax.ttl_days, 29, 29),
    ],
)
def test_is_taken(read, text, value):
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (syntax.region, "us-east-1a", "us-east-1"),
        (syntax.region, "US-EAST-1", "us-east-1"),
        (syntax.region, "", "us-east-1"),
        (syntax.queue, "tasks.fifo", "FIFO queues are not supported"),
        (syntax.queue, "https://sqs.us-east-1.amazonaws.com/1/tasks.fifo", "FIFO queues are not supported"),
        (syntax.queue, "q" * 81, "1 to 80"),
        (syntax.queue, "arn:aws:sqs:us-east-1:1:q", "a queue's URL"),
        (syntax.queue, "https://host/q", "a queue's URL"),
        (syntax.queue, "https://host//q", "a queue's URL"),
        (syntax.queue, "https://host/1/q/", "a queue's URL"),
        (syntax.queue, "https://host/1/q?x=1", "a queue's URL"),
        (syntax.queue, "ftp://host/1/q", "a queue's URL"),
        (syntax.queue, "https://u:p@host/1/q", "without user and password"),
        (QUEUES, "", "must not be empty"),
        (QUEUES, " , ", "must not be empty"),
        (QUEUES, "a, b c", "item 2: expected a queue's URL"),
        (QUEUES, "a, b, a", "item 3: the same as item 1"),
        (syntax.table, "ab", "3 to 255"),
        (syntax.table, "arn:aws:dynamodb", "table's name"),
        (syntax.bucket, "s3://bucket", "without s3://"),
        (syntax.bucket, "Bucket", "a-z"),
        (syntax.bucket, "a..b", "3 to 63"),
        (syntax.bucket, "ab", "3 to 63"),
        (syntax.bucket, "a" * 64, "3 to 63"),
        (syntax.bucket, "bucket-", "beginning and ending"),
        (syntax.bucket, "192.168.1.1", "IP address"),
        (syntax.domain, "http://d1.cloudfront.net", "a domain without a path"),
        (syntax.domain, "d1.cloudfront.net/x", "a domain without a path"),
        (syntax.base_url, "127.0.0.1:7860", "http://127.0.0.1:7860"),
        (syntax.base_url, "http://", "http://127.0.0.1:7860"),
        (syntax.base_url, "http://h:x", "http://127.0.0.1:7860"),
        (syntax.base_url, "http://h:70000", "http://127.0.0.1:7860"),
        (syntax.base_url, "http://[::1", "http://127.0.0.1:7860"),
        (syntax.base_url, "http://h?x=1", "without query"),
        (syntax.base_url, "http://h#x", "without query"),
        (syntax.base_url, "http://u:p@h", "without user and password"),
        (syntax.login, "user", "user:password"),
        (syntax.login, ":password", "user:password"),
        (syntax.login, "user:", "user:password"),
        (syntax.words, "echo 'a", "no closing quotation"),
        (syntax.prefix, "/a", "no / at the beginning"),
        (syntax.prefix, "a/../b", "no part empty, . or .."),
        (syntax.prefix, "a//b", "no part empty, . or .."),
        (syntax.prefix, "a b", "A-Z a-z 0-9"),
        (syntax.prefix, "a" * 201, "at most 200"),
        (syntax.host, "", "host name or an IP address"),
        (syntax.host, "a b", "host name or an IP address"),
        (syntax.host, "127.0.0.1:80", "host name or an IP address"),
        (syntax.ttl_days, 28, "14 days in the queue and 14 more in the dead-letter queue"),
    ],
)
def test_is_refused_in_these_words(read, text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        read(text)


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("aZ0._-/ é"), max_size=210))
def test_a_prefix_that_is_taken_is_safe_as_it_is(text):
    try:
        taken = syntax.prefix(text)
    except ValueError:
        return
    assert clean_prefix(taken) == taken
