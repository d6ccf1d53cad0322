"""Reading INI text: every entry with its line, every fault at once, and no fault that quotes a line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.config_file import Entry, expand, parse


def test_entries_keep_case_order_and_the_line_they_begin_on():
    ini = parse("# a comment\n[one]\nKey = a = b\n\n; another\n  [two]\nurls = http://x:1,\n   http://y:2\nempty =\n")
    assert ini.faults == ()
    assert ini.sections == (("one", 2), ("two", 6))
    assert ini.entries == (
        Entry("one", "Key", "a = b", 3),
        Entry("two", "urls", "http://x:1,\nhttp://y:2", 7),
        Entry("two", "empty", "", 9),
    )


def test_a_percent_sign_and_a_hash_within_a_value_are_nothing_special():
    assert parse("[a]\nb = 100% # ; %(c)s").entries == (Entry("a", "b", "100% # ; %(c)s", 2),)


def test_default_is_a_section_like_any_other():
    ini = parse("[DEFAULT]\na = 1\n[b]\nc = 2")
    assert ini.sections == (("DEFAULT", 1), ("b", 3))
    assert ini.entries == (Entry("DEFAULT", "a", "1", 2), Entry("b", "c", "2", 4))


def test_all_faults_are_found_in_one_pass_and_the_rest_is_read():
    text = "early = 1\n[a]\nno delimiter\nk = 1\nk = 2\n  continued\n[b]\nx = 1\n[a]\nk2 = 3\n= 4\n[a]\nk3 = 5\n"
    ini = parse(text)
    assert [line for line, _ in ini.faults] == [1, 3, 5, 9, 11, 12]
    said = dict(ini.faults)
    assert "section header" in said[1]
    assert "key = value" in said[3]
    assert said[5] == "[a] k is given a second time; keep one of the two"
    assert said[9] == said[12] == "[a] begins a second time; put its keys where it begins first"
    assert [(e.section, e.key, e.value, e.line) for e in ini.entries] == [
        ("a", "k", "1", 4),
        ("b", "x", "1", 8),
        ("a", "k2", "3", 10),
        ("a", "k3", "5", 13),
    ]


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("ab[]=:#; \n\t\r\0é\\"), max_size=60))
def test_no_text_makes_it_fail_and_every_line_number_lies_within(text):
    ini = parse(text)
    lines = text.count("\n") + 1
    assert all(1 <= line <= lines for line in [*[line for _, line in ini.sections], *[line for line, _ in ini.faults]])
    assert all(1 <= entry.line <= lines and "\0" not in entry.key + entry.section for entry in ini.entries)
    assert len({entry.line for entry in ini.entries}) == len(ini.entries)


@settings(deadline=None)
@given(
    secret=st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=20).map("zQ9x{}".format),
    form=st.sampled_from(
        ["{}", "auth {}", "auth: {}", "[a]\nauth {} = 1\nauth {} = 1", "[a]\n {}", "[a]\nk=1\n k {}\n= {}"]
    ),
)
def test_no_fault_quotes_what_a_line_says(secret, form):
    assert not any(secret in what for _, what in parse(form.replace("{}", secret)).faults)


ENVIRON = {"USER": "ann", "EMPTY": "", "NESTED": "${USER}"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain $USER $ {USER} $$", "plain $USER $ {USER} $$"),
        ("${USER}:${USER}", "ann:ann"),
        ("<${EMPTY}>", "<>"),
        ("$${USER}", "${USER}"),
        ("$$${USER}", "$${USER}"),
        ("${NESTED}", "${USER}"),
    ],
)
def test_variables_expand_once_and_can_be_escaped(text, expanded):
    assert expand(text, ENVIRON) == (expanded, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${NONE}", ["environment variable NONE is not set"]),
        ("${user}", ["environment variable user is not set"]),
        ("${A}${USER}${B}", ["environment variable A is not", "environment variable B is not"]),
        ("${}", ["write ${NAME}"]),
        ("${USER", ["write ${NAME}"]),
        ("${my secret}", ["write ${NAME}"]),
    ],
)
def test_what_cannot_expand_is_named(text, said):
    _, wrong = expand(text, ENVIRON)
    assert len(wrong) == len(said)
    assert all(what.startswith(words) for what, words in zip(wrong, said, strict=True))
    assert "secret" not in "".join(wrong)
