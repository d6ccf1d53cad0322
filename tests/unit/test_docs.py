"""The documents say what the code does: settings, commands, metrics, events, attributes,
exit codes, links, translations.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from prometheus_client import Metric

from scheduler import app, config, config_pages
from scheduler.cli import failure, root
from scheduler.held import State
from scheduler.observe import metrics
from scheduler.observe.gpu import Gpu

ROOT = Path(__file__).parents[2]
CODE = sorted((ROOT / "scheduler").rglob("*.py"))
README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
OPERATIONS, CONTRIBUTING = ROOT / "docs/operations.md", ROOT / "CONTRIBUTING.md"
ARCHITECTURE = ROOT / "docs/architecture.md"
DOCUMENTS = [
    README,
    CHINESE,
    CONTRIBUTING,
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(path: Path) -> str:
    """A document without its code blocks."""
    return BLOCK.sub("", path.read_text())


def tables(path: Path) -> list[list[list[str]]]:
    """The tables of a document, each a list of rows of cells, its head left out."""
    found: list[list[list[str]]] = [[]]
    for line in text_of(path).splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [table[2:] for table in found if table]


def section(path: Path, heading: str) -> str:
    """What stands below a heading of the second rank."""
    _, _, after = path.read_text().partition(f"\n## {heading}\n")
    assert after, f"{name_of(path)} has no section {heading}"
    return after.partition("\n## ")[0]


def rows(path: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    lines = [line for line in section(path, heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# settings, commands, metrics, exit codes


def test_the_table_of_settings_is_the_generated_one():
    assert config_pages.markdown_table() in README.read_text()


def test_the_chinese_table_of_settings_has_the_same_keys_and_defaults():
    generated = [line.strip("|").split("|") for line in config_pages.markdown_table().splitlines()[2:]]
    expected = [[cell.strip() for cell in row[:3]] for row in generated]
    assert [row[:3] for table in tables(CHINESE) for row in table if len(row) == 4] == expected


def commands() -> dict[str, click.Command]:
    """Every command by the words that call it."""
    found: dict[str, click.Command] = {}
    for name in root.COMMANDS:
        command = root.cli.get_command(click.Context(root.cli), name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= {f"{name} {inner}": one for inner, one in command.commands.items()}
        else:
            found[name] = command
    return found


COMMANDS = commands()


def test_every_command_is_documented_and_every_documented_one_is_there():
    told = [quoted(row[0])[0].removeprefix("sd-scheduler ") for row in rows(OPERATIONS, "Commands")]
    assert sorted(told) == sorted(COMMANDS)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_an_example(name):
    assert f"sd-scheduler {name}" in (COMMANDS[name].help or "").partition("Example")[2]


def all_metrics(monkeypatch: pytest.MonkeyPatch) -> list[Metric]:
    gpu = Gpu(name="0", utilization=0.5, memory_used_bytes=1, memory_total_bytes=2)
    monkeypatch.setattr(metrics, "read_gpus", lambda: [gpu])
    ours = metrics.Metrics()
    ours.watch(dict)
    return list(ours.registry.collect())


def test_every_metric_is_documented_and_every_documented_one_is_there(monkeypatch):
    shown = {(f"{one.name}_total" if one.type == "counter" else one.name): one.type for one in all_metrics(monkeypatch)}
    told = {quoted(row[0])[0]: row[1] for row in rows(OPERATIONS, "Metrics")}
    assert told == shown


def test_every_reason_for_giving_back_is_documented():
    literal = {
        keyword.value.value
        for call in calls()
        for keyword in call.keywords
        if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant)
    }
    assert literal > {"stop", "elsewhere"}
    row = next(row for row in rows(OPERATIONS, "Metrics") if "returned_total" in row[0])
    assert literal <= set(quoted(row[3]))


def test_every_state_of_a_held_task_is_documented():
    assert {state.name.lower() for state in State} <= set(quoted(section(OPERATIONS, "Health")))


def test_every_exit_code_is_documented():
    scripts = "".join(script.read_text() for script in (ROOT / "deploy/run").glob("*.sh"))
    used = {0, failure.FAILED, failure.WRONG_USE, failure.REFUSED, failure.INTERRUPTED, app.LOOP_DIED, 128 + 15}
    used |= {int(code) for code in re.findall(r"\bexit (\d+)", scripts)}
    assert {int(row[0]) for row in rows(OPERATIONS, "Exit codes")} == used
    line = next(line for line in CONTRIBUTING.read_text().splitlines() if line.startswith("Exit codes:"))
    assert set(map(int, re.findall(r"\d+", line))) == used - {75, 78, 143}


# log events and attributes, found in the source


def calls() -> Iterator[ast.Call]:
    for path in CODE:
        yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def events() -> dict[str, tuple[str, set[str]]]:
    """Each event that the code logs: its level, and the fields that any of its lines has."""
    found: dict[str, tuple[str, set[str]]] = {}
    for call in calls():
        if not (isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) and call.args):
            continue
        owner, method, first = call.func.value.id, call.func.attr, call.args[0]
        if (owner, method) == ("plan", "tell"):  # a plan's events are logged by whoever leads
            is_alarm = any(keyword.arg == "alarm" for keyword in call.keywords)
            fields = {keyword.arg for keyword in call.keywords if keyword.arg} - {"alarm"}
            found[str(getattr(first, "value", ""))] = ("error" if is_alarm else "info", fields)
            continue
        is_report = (owner, method) == ("self", "report")
        if not is_report and not (owner in {"log", "_log", "logger"} and method in LEVELS):
            continue
        assert isinstance(first, ast.Constant), "an event's name is fixed"
        event, level = str(first.value), "error" if is_report else LEVELS[method]
        assert found.setdefault(event, (level, set()))[0] == level, f"{event} has two levels"
        found[event][1].update(keyword.arg for keyword in call.keywords if keyword.arg)
    return found


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_answer_that_the_readme_shows_counts_the_keys_there_are(readme: str) -> None:
    places = {"aws_region": "us-east-1", "sqs_queue_url": "tasks", "dynamodb_table": "records", "s3_bucket": "pictures"}
    given = {f"SCHEDULER_AWS_{key.upper()}": value for key, value in places.items()}
    rows = config_pages.effective(config.load(None, given))
    by_default = len([row for row in rows if row.source == "default"])
    assert f"OK: 4 keys from conf.ini, 0 from the environment, {by_default} by default" in (ROOT / readme).read_text()


def test_every_event_is_documented_with_its_fields_and_every_documented_one_is_logged():
    logged = events()
    assert {"task_ended", "engine_down", "program_flapping"} <= set(logged)
    told = {quoted(row[0])[0]: (row[1], set(quoted(row[2]))) for row in rows(OPERATIONS, "Log")}
    assert set(told) == set(logged)
    for event, (level, fields) in logged.items():
        assert told[event][0] == level, event
        assert fields <= told[event][1], event
        # What `task_ended` is given beside comes from its callers, one of them by another function.
        assert told[event][1] == fields or event == "task_ended", event


def test_every_attribute_of_a_record_is_documented():
    written = {
        keyword.arg
        for path in (ROOT / "scheduler/stores").glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in {"set", "set_once", "add"}
        for keyword in call.keywords
        if keyword.arg
    }
    assert written > {"status", "owner", "attempt", "lease_until"}
    told = {name for row in rows(OPERATIONS, "Records") for name in quoted(row[0])}
    assert written <= told


# the architecture


def test_every_group_of_threads_is_a_row_and_every_row_is_one():
    started = set()
    for call in calls():
        match call.func:
            case ast.Attribute(attr="start", value=ast.Name(id="threads") | ast.Attribute(attr="threads" | "_threads")):
                [group, _] = call.args
                assert isinstance(group, ast.Constant), "the name of a group of threads is fixed"
                started.add(group.value)
    assert started > {"receive", "engine", "keep"}
    rows_of = rows(ARCHITECTURE, "Threads, and what ends the process")
    assert {name for row in rows_of for name in quoted(row[0])} == started | {"health"}


def test_every_module_in_the_life_of_a_task_is_there():
    named = [name for row in rows(ARCHITECTURE, "Life of a task") for name in quoted(row[1])]
    assert "loops/receive.py" in named
    for name in named:
        assert (ROOT / "scheduler" / name).exists(), name


# links, and the two languages


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", text_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_relative_link_leads_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{name_of(path)}: {link}"
        assert not anchor or anchor in anchors(file), f"{name_of(path)}: {link}"


def test_the_two_readmes_have_the_same_headings_by_rank():
    ranks = [re.findall(r"^(#+) ", text_of(path), re.MULTILINE) for path in (README, CHINESE)]
    assert ranks[0] == ranks[1]
    assert len(ranks[0]) > 8


def test_the_two_readmes_show_the_same_code():
    assert BLOCK.findall(CHINESE.read_text()) == BLOCK.findall(README.read_text())


def test_the_two_readmes_have_the_same_tables():
    english, chinese = tables(README), tables(CHINESE)
    assert [[row[0] for row in table] for table in chinese] == [[row[0] for row in table] for table in english]
    assert len(english) >= 4


def test_the_two_readmes_have_the_same_links():
    links = [sorted(re.findall(r"\]\(([^)\s]+)\)", text_of(path))) for path in (README, CHINESE)]
    assert [link for link in links[1] if link != "README.md"] == [
        link for link in links[0] if link != "README.zh-CN.md"
    ]


def test_the_decisions_are_numbered_and_each_says_context_choice_and_price():
    files = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for file in files:
        lines = file.read_text().splitlines()
        assert lines[0].startswith(f"# {file.name[:4]}: ")
        assert [line for line in lines if line.startswith("## ")] == ["## Context", "## Choice", "## Price"]
        assert len(lines) < 40
