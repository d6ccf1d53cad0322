"""Keys: safe whatever a client writes into a prefix, and the same on every attempt."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.domain.keys import MAX_PREFIX_CHARS, TASK_ID, address, clean_prefix, image_key, output_key, run_mark
from scheduler.domain.task import Format, Task, TaskType

task_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
prefixes = (
    st.text(st.sampled_from("./\\ ab-_=?#%é\0\n~"), max_size=30) | st.text() | st.text(min_size=190, max_size=210)
)


def task(task_id: str = "task-1", *, prefix: str | None = None, form: Format = Format.OWN) -> Task:
    return Task(task_id=task_id, task_type=TaskType.TXT2IMG, payload={}, fingerprint="f", prefix=prefix, format=form)


def key_of(of: Task, *, default_prefix: str = "tasks", run_no: int = 1, index: int = 1, extension: str = ".png") -> str:
    return image_key(of, default_prefix=default_prefix, run_no=run_no, index=index, extension=extension)


@pytest.mark.parametrize(
    ("prefix", "cleaned"),
    [
        ("clients/7", "clients/7"),
        ("/clients//7/", "clients/7"),
        ("../../etc", "etc"),
        ("a/./b/../c", "a/b/c"),
        (".../a", ".../a"),
        ("..", ""),
        ("", ""),
        ("///", ""),
        ("year=2030/day=1", "year=2030/day=1"),
        ("with space/and?query#part", "with-space/and-query-part"),
        ("%2e%2e/a", "-2e-2e/a"),
        ("..\\..\\a", "..-..-a"),
        ("狐狸/a", "-/a"),
        ("a\0b\nc", "a-b-c"),
        ("a" * 250, "a" * 200),
        ("a" * 199 + "/bcd", "a" * 199),
        ("a" * 197 + "/..bcd", "a" * 197),
        ("a" * 198 + "/.bcd", "a" * 198),
    ],
)
def test_a_prefix_is_made_safe(prefix, cleaned):
    assert clean_prefix(prefix) == cleaned


@given(prefixes)
@example("a" * 197 + "/..b")
def test_no_prefix_stays_unsafe(prefix):
    cleaned = clean_prefix(prefix)
    assert len(cleaned) <= MAX_PREFIX_CHARS
    assert re.fullmatch(r"([A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*)?", cleaned)
    assert not {".", ".."} & set(cleaned.split("/"))
    assert clean_prefix(cleaned) == cleaned


@given(st.lists(st.from_regex(r"[A-Za-z0-9_=-]{1,20}", fullmatch=True), max_size=5).map("/".join))
def test_a_prefix_that_is_safe_stays_as_it_is(prefix):
    assert clean_prefix(prefix) == prefix


@given(task_ids, st.none() | prefixes, prefixes, st.integers(1, 10**6), st.integers(1, 1000), st.sampled_from(Format))
def test_every_key_is_safe_bounded_and_the_same_again(task_id, prefix, default_prefix, run_no, index, form):
    def key() -> str:
        of = task(task_id, prefix=prefix, form=form)
        return key_of(of, default_prefix=default_prefix, run_no=run_no, index=index)

    assert re.fullmatch(r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*", key())
    assert not {".", ".."} & set(key().split("/"))
    assert len(key().encode()) <= 500  # S3 takes 1024
    assert key() == key()


def test_pictures_of_different_tasks_runs_and_places_never_share_a_key():
    task_ids = ["a", "a-1", "a-r2", "r2-1", "1", "1.png", "r2-1.png", "a.b"]
    prefixes = [None, "a", "a/a", "tasks/a", "tasks"]
    pictures = list(product(task_ids, prefixes, [1, 2, 12], [1, 2, 12, 21]))
    keys = {
        key_of(task(task_id, prefix=prefix), run_no=run_no, index=index) for task_id, prefix, run_no, index in pictures
    }
    same = sum(prefix == "tasks" for _, prefix, _, _ in pictures)  # the default said aloud
    assert len(keys) == len(pictures) - same


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (key_of(task()), "tasks/task-1/1.png"),
        (key_of(task(), index=4, extension=".webp"), "tasks/task-1/4.webp"),
        (key_of(task(), run_no=2), "tasks/task-1/r2-1.png"),
        (key_of(task(prefix="clients/7")), "clients/7/task-1/1.png"),
        (key_of(task(prefix="../..")), "tasks/task-1/1.png"),
        (key_of(task(prefix="")), "tasks/task-1/1.png"),
        (key_of(task(), default_prefix=""), "task-1/1.png"),
    ],
)
def test_the_form_of_a_key(key, expected):
    assert key == expected


@pytest.mark.parametrize(("index", "expected"), [(1, "sd/out/task-1-1.png"), (12, "sd/out/task-1-12.png")])
def test_the_predecessors_clients_build_the_key_themselves(index, expected):
    of = task(form=Format.PREDECESSOR, prefix="clients/7")
    assert key_of(of, default_prefix="elsewhere", index=index) == expected


EKS = [form for form in Format if form.is_eks]


@pytest.mark.parametrize("form", EKS)
@pytest.mark.parametrize(
    ("prefix", "folder"),
    [
        ("output", "output/test-t2i"),
        ("output/", "output/test-t2i"),
        ("/customers//7/", "customers/7/test-t2i"),
        ("../..", "test-t2i"),
        ("", "test-t2i"),
        (None, "test-t2i"),
    ],
)
def test_tasks_of_eks_keep_its_keys_without_the_default_prefix(form, prefix, folder):
    of = task("test-t2i", prefix=prefix, form=form)
    mark = run_mark("test-t2i", 1)
    assert key_of(of, index=2, extension=".webp") == f"{folder}/test-t2i-{mark}-2.webp"
    assert output_key(of, run_no=1) == f"{folder}/test-t2i-{mark}.out"


def test_the_mark_of_a_run_is_four_digits_and_the_same_for_ever():
    assert [run_mark("test-t2i", run_no) for run_no in (1, 2)] == ["7fce", "7fcf"]
    assert [run_mark(task_id, 1) for task_id in ("307", "a")] == ["6d98", "ca98"]


@given(task_ids, st.integers(1, 70_000), st.integers(1, 200_000))
def test_two_runs_of_a_task_never_share_a_mark(task_id, run_no, apart):
    """Else the pictures of the first would be taken for those of the second, which are written once."""
    one, other = run_mark(task_id, run_no), run_mark(task_id, run_no + apart)
    assert one != other
    assert re.fullmatch("[0-9a-f]{4}", one) or run_no >= 65536


@pytest.mark.parametrize("task_id", ["", ".a", "-a", "_a", "a/b", "a b", "a\n", "é", "a" * 129, "a\0"])
def test_ids_that_are_not_safe_are_no_ids(task_id):
    assert TASK_ID.fullmatch(task_id) is None


def test_an_address_is_behind_cloudfront_where_there_is_one():
    assert address("a/1.png", bucket="b", cloudfront_domain="d1.cloudfront.net") == "https://d1.cloudfront.net/a/1.png"
    assert address("a/1.png", bucket="b", cloudfront_domain="") == "s3://b/a/1.png"
