"""The page of promises names every rule, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "correctness.md").read_text(encoding="utf-8")
RULES = 40
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def sections() -> dict[int, str]:
    parts = re.split(r"^### (\d+)\. ", PAGE, flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True)}


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def test_every_rule_is_there_once_and_in_order():
    numbers = re.findall(r"^### (\d+)\. ", PAGE, flags=re.MULTILINE)
    assert numbers == [str(number) for number in range(1, RULES + 1)]


@pytest.mark.parametrize("rule", range(1, RULES + 1))
def test_every_rule_is_held_by_tests_that_exist(rule):
    references = REFERENCE.findall(sections()[rule])
    assert references, f"no test holds rule {rule}"
    missing = [f"{path}::{name}" for path, name in references if name not in names_in(path)]
    assert missing == []
    assert len(set(references)) == len(references)


def test_whatever_looks_like_a_reference_is_one():
    assert len(re.findall(r"::test_", PAGE)) == len(REFERENCE.findall(PAGE))
