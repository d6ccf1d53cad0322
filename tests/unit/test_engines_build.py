"""Which engines the settings make: kinds, names, runtimes, addresses."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import FakeInputs

from scheduler import config
from scheduler.config_syntax import ENGINE_KINDS
from scheduler.domain.ports import Engine
from scheduler.domain.routing import kind_for
from scheduler.domain.task import Task, TaskType
from scheduler.engines.build import build_engines
from scheduler.wire.job_api import PATHS

AWS = "[aws]\naws_region = us-east-1\nsqs_queue_url = tasks\ndynamodb_table = records\ns3_bucket = pictures\n"
HERE = "http://127.0.0.1"


def built(folder: Path, text: str = "") -> list[Engine]:
    file = folder / "conf.ini"
    file.write_text(AWS + text)
    return build_engines(config.load(file, {}), FakeInputs())


def told(engines: list[Engine]) -> list[tuple[str, str, list[str]]]:
    return [(type(engine).__name__, engine.name, sorted(engine.runtimes)) for engine in engines]


WEBUI = ("SdWebUiEngine", "sdwebui", ["legacy", "sdwebui"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [WEBUI]),
        (
            f"[sd_api]\nsd_api_base_url = {HERE}:1, {HERE}:2\n",
            [WEBUI, ("SdWebUiEngine", "sdwebui-2", ["legacy", "sdwebui"])],
        ),
        (f"[engines]\njobs = job_api {HERE}:3\n", [("JobApiEngine", "jobs", ["jobs"])]),
        (
            f"[sd_api]\nsd_api_base_url = {HERE}:1\n[engines]\njobs = job_api {HERE}:3\n",
            [WEBUI, ("JobApiEngine", "jobs", ["jobs"])],
        ),
        (
            f"[engines]\nlegacy = sdwebui {HERE}:1\nfast = sdwebui {HERE}:1,{HERE}:2\n",
            [("SdWebUiEngine", "legacy", ["fast", "legacy"]), ("SdWebUiEngine", "fast-2", ["fast"])],
        ),
        (
            f"[sd_api]\nsd_api_base_url = {HERE}:1\n[engines]\nlegacy = sdwebui {HERE}:2\n",
            [("SdWebUiEngine", "sdwebui", ["sdwebui"]), ("SdWebUiEngine", "legacy", ["legacy"])],
        ),
    ],
    ids=["the WebUI", "two of them", "another alone", "besides", "two names of one", "legacy given away"],
)
def test_engines_are_what_the_settings_name(tmp_path, text, expected):
    engines = built(tmp_path, text)
    assert told(engines) == expected
    assert set(config.load(tmp_path / "conf.ini", {}).served) == {name for one in engines for name in one.runtimes}


def test_every_kind_that_may_be_configured_can_be_made(tmp_path):
    lines = "".join(f"{kind}-one = {kind} {HERE}:{8000 + n}\n" for n, kind in enumerate(ENGINE_KINDS))
    engines = built(tmp_path, f"[engines]\n{lines}")
    assert [engine.name for engine in engines] == [f"{kind}-one" for kind in ENGINE_KINDS]
    assert len({type(engine) for engine in engines}) == len(ENGINE_KINDS)


@pytest.mark.parametrize(
    "task",
    [
        Task(task_id="t", task_type=TaskType.EXTRA_SINGLE, payload={}, fingerprint=""),
        Task(task_id="t", task_type=TaskType.PIPELINE, payload={}, fingerprint=""),
        Task(task_id="t", task_type=TaskType.PIPELINE, payload={}, fingerprint="", api_path=PATHS[0]),
    ],
    ids=["picture", "graph", "job"],
)
def test_which_kind_runs_what_is_known_without_the_engines(tmp_path, task):
    lines = "".join(f"a-{kind} = {kind} {HERE}:{port}\n" for port, kind in enumerate(ENGINE_KINDS, 1))
    for engine in built(tmp_path, f"[engines]\n{lines}"):
        served = config.load(tmp_path / "conf.ini", {}).served
        assert engine.can_run(task) == (served[engine.name].kind == kind_for(task))
