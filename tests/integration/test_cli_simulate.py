"""``sd-scheduler simulate`` as it is called: lines, a table, JSON, pictures, and what it says when asked wrongly."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from scheduler.autoscale.snapshot import Snapshot
from scheduler.cli.root import cli

SHORT = ("--demand", "poisson:days=0.1,rate=0.05,service=20")
NEEDED = {
    "policy",
    "gpu_hours",
    "cost_usd",
    "busy_share",
    "wait_p50_s",
    "wait_p95_s",
    "wait_p99_s",
    "late_share",
    "killed",
    "actions",
    "peak",
}


def run(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, ["simulate", *words])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def told(*words: str) -> Any:
    done = run(*words, "--json")
    assert done.stderr == ""
    return json.loads(done.stdout)


def names(*words: str) -> list[str]:
    return [row["policy"] for row in told(*SHORT, *words)["policies"]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "conf.ini"
    path.write_text(
        "[aws]\naws_region = us-east-1\nsqs_queue_url = https://sqs.us-east-1.amazonaws.com/123456789012/tasks\n"
        "dynamodb_table = tasks-1\ns3_bucket = pictures-1\n"
        "[autoscaling]\npolicy = threshold\nscale_out_threshold = 1\nmin_capacity = 1\nmax_capacity = 3\n"
    )
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "requests.csv"
    rows = "".join(f"{1000 + 40 * number},30,30,1,m{number % 3}\n" for number in range(200))
    path.write_text("t,service_s,steps,images,model\n" + rows)
    return path


# what is shown


def test_json_has_a_row_for_each_policy_and_the_oracles():
    found = told(*SHORT, "--compare")
    rows = {row["policy"]: row for row in found["policies"]}
    assert all(set(row) >= NEEDED for row in rows.values())
    assert {"oracle-0", "oracle-60", "backlog:balanced", "threshold", "keda-1", "buildkite", "target-tracking"} < set(
        rows
    )
    assert rows["oracle-60"]["late_share"] == 0
    assert found["demand"]["name"] == SHORT[1]
    assert found["recommendation"]["settings"]["policy"] in {"backlog", "threshold", "step", "idle-stop"}


def test_without_more_the_presets_are_simulated_and_the_same_every_time():
    assert names() == ["oracle-0", "oracle-60", "backlog:thrifty", "backlog:balanced", "backlog:prompt"]
    assert told(*SHORT) == told(*SHORT)
    assert told(*SHORT, "--seed", "2") != told(*SHORT)


def test_a_pipe_gets_lines_with_what_to_write_and_what_it_costs(trace):
    lines = run("--trace", str(trace), "--policy", "backlog:prompt", "--most-late", "1").stdout.splitlines()
    assert lines[0].startswith("requests.csv: 200 tasks in 0.125 days; ")
    assert lines[1].startswith(
        "assumed: $0.18 an hour (--price; what your instance type costs), a boot of 150 s (--boot) "
    )
    head, *rows = lines[3:7]
    assert head.split()[:2] == ["policy", "GPU-h"]
    assert [row.split()[0] for row in rows] == ["oracle-0", "oracle-60", "backlog:prompt"]
    place = lines.index("[autoscaling]")
    assert lines[place + 1 : place + 5] == [
        "policy = backlog",
        "preset = prompt",
        "min_capacity = 0",
        "max_capacity = 3",
    ]
    assert lines[place + 6].startswith("$")
    assert " a month (" in lines[place + 6]
    assert "less than a day" in lines[place + 7]
    assert lines[place + 8] == "20 workers were allowed, 2 used: max_capacity is those and a reserve."
    assert lines[-1] == "late_worth_s, target_wait_s, min_capacity were left as they are: --sweep varies them, too."


def test_what_is_recommended_is_a_configuration(config, trace):
    lines = run("--trace", str(trace)).stdout.splitlines()
    place = lines.index("[autoscaling]")
    text = config.read_text().partition("[autoscaling]")[0] + "\n".join(lines[place : place + 5])
    config.write_text(text)
    done = CliRunner().invoke(cli, ["config", "check", "-c", str(config)])
    assert done.exit_code == 0, done.output


def test_an_impossible_wish_is_told_as_such():
    out = run(*SHORT, "--policy", "idle-stop", "--policy", "static-3", "--most-late", "0", "--max-capacity", "1").stdout
    assert "Nothing here that conf.ini can say keeps at most 0% late. The fewest has idle-stop:" in out
    assert "--max-capacity" not in out, "one worker is all that idle-stop ever has"


def test_a_larger_fleet_is_advised_with_what_it_would_bring():
    words = ("--policy", "backlog", "--most-late", "0.1", "--max-capacity")
    out = run(*SHORT, *words, "1").stdout
    larger = told(*SHORT, *words, "2")["policies"][-1]
    said = f"All 1 workers allowed were in use. With --max-capacity 2: {larger['late_share']:.1%}"
    assert said.replace(".0%", "%") in out


def test_a_larger_fleet_that_would_not_help_is_not_advised():
    burst = ("--demand", "burst:days=1,every=7200,size=20,service=20", "--policy", "backlog:prompt")
    out = run(*burst, "--max-capacity", "20").stdout
    assert "All 20 workers allowed were in use, but 40 would hardly help (" in out
    assert "With --max-capacity" not in out


def test_what_counts_as_late_is_what_is_aimed_at(config):
    words = (*SHORT, "--policy", "backlog", "--late-after", "300")
    assert told(*words)["recommendation"]["settings"]["target_wait_s"] == "300"
    assert "It aims at" not in run(*words).stdout
    set_apart = run(*words, "--set", "target_wait_s=45").stdout
    assert "It aims at waits of 45 s, and late here is what waits over 300 s: --set target_wait_s=300 " in set_apart
    assert "It aims at waits of 60 s, and late" in run(*words, "-c", str(config)).stdout


def test_a_fleet_of_always_the_same_size_is_what_both_bounds_say():
    out = run(*SHORT, "--policy", "static-4").stdout
    assert "policy = backlog\nmin_capacity = 4\nmax_capacity = 4\n" in out


def test_rivals_alone_recommend_nothing():
    assert "nothing is recommended" in run(*SHORT, "--policy", "buildkite").stdout
    assert told(*SHORT, "--policy", "buildkite")["recommendation"] is None


def test_a_rival_that_does_better_is_named():
    demand = ("--demand", "burst:days=1,every=500,size=8,service=20")
    out = run(*demand, "--policy", "backlog:thrifty", "--policy", "buildkite").stdout
    assert "buildkite, which conf.ini cannot say, does better: " in out
    assert "--sweep" in out


def terminal(*words: str, columns: int) -> str:
    """What a terminal of that width is shown."""
    main, side = pty.openpty()
    environ = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    command = [sys.executable, "-c", "from scheduler.cli.root import cli; cli()", "simulate", *words]
    with subprocess.Popen(command, stdout=side, stderr=side, env=environ) as process:
        os.close(side)
        shown = b""
        while True:
            try:
                piece = os.read(main, 65536)
            except OSError:  # Linux says so at the end
                break
            if not piece:
                break
            shown += piece
    os.close(main)
    assert process.returncode == 0, shown
    return shown.decode()


def test_a_terminal_gets_a_table_that_fits_and_sees_how_far_it_is():
    wide, narrow = (terminal(*SHORT, columns=columns) for columns in (120, 80))
    assert "simulating 3 of 3: backlog:prompt, day 0.1 of 0.1" in wide
    assert "actions" in wide
    assert "actions" not in narrow
    for text in (wide, narrow):
        assert "backlog:balanced" in text
        assert "[autoscaling]" in text


def piped(*words: str, into: str) -> subprocess.CompletedProcess[str]:
    """Call it in a shell, its standard output going `into` something; the code is its own, not the reader's."""
    command = f"{sys.executable} -c 'from scheduler.cli.root import cli; cli()' simulate {' '.join(words)} {into}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_full_disk_is_told_in_one_line(as_json):
    done = piped(*SHORT, *as_json, into="> /dev/full")
    assert (done.returncode, done.stderr) == (1, "error: standard output cannot be written: No space left on device\n")


def test_a_reader_that_has_seen_enough_is_no_failure():
    done = piped(*SHORT, into='| true; exit "${PIPESTATUS[0]}"')
    assert (done.returncode, done.stderr) == (0, "")


# the world


def test_the_options_change_the_world(config):
    usual = told(*SHORT, "--policy", "backlog")
    assert usual["world"]["max_capacity"] == 20
    options = {
        "boot_s": ("--boot", "30", 30.0),
        "launch_s": ("--launch", "5", 5.0),
        "price_usd_per_hour": ("--price", "1.5", 1.5),
        "reclaims_per_hour": ("--reclaims", "0", 0.0),
        "switch_s": ("--switch", "0", 0.0),
        "tick_s": ("--tick", "30", 30.0),
        "counts_age_s": ("--counts-age", "0:10", [0.0, 10.0]),
        "min_capacity": ("--min-capacity", "2", 2),
        "max_capacity": ("--max-capacity", "3", 3),
        "late_after_s": ("--late-after", "10", 10.0),
        "seed": ("--seed", "7", 7),
        "shortages": ("--shortage", "0.5:1:2", [[1800.0, 3600.0, 2]]),
    }
    words = [word for option, value, _ in options.values() for word in (option, value)]
    world = told(*SHORT, "--policy", "backlog", *words)["world"]
    assert {key: world[key] for key in options} == {key: value for key, (_, _, value) in options.items()}


def test_a_faster_boot_makes_fewer_late_and_a_price_makes_the_cost():
    slow, fast = (told(*SHORT, "--policy", "backlog", "--boot", boot)["policies"][-1] for boot in ("300", "20"))
    assert fast["late_share"] < slow["late_share"]
    cheap, dear = (told(*SHORT, "--policy", "backlog", "--price", price)["policies"][-1] for price in ("1", "2"))
    assert dear["cost_usd"] == pytest.approx(2 * cheap["cost_usd"], abs=0.02)


def test_a_shortage_makes_tasks_late():
    lates = [
        told(*SHORT, "--policy", "backlog", *words)["policies"][-1]["late_share"]
        for words in ((), ("--shortage", "0:1:0"))
    ]
    assert lates[0] < 0.4 < lates[1]


# what is simulated


def test_the_configuration_is_simulated_within_its_bounds_and_beside_the_presets(config):
    found = told(*SHORT, "-c", str(config))
    assert [row["policy"] for row in found["policies"]][2:] == [
        "conf.ini",
        "backlog:thrifty",
        "backlog:balanced",
        "backlog:prompt",
    ]
    assert (found["world"]["min_capacity"], found["world"]["max_capacity"]) == (1, 3)
    assert found["recommendation"]["settings"]["max_capacity"] == "3"


def test_the_configuration_is_what_its_keys_say(config):
    own = told(*SHORT, "-c", str(config), "--policy", "threshold")["policies"][2:]
    assert [row["policy"] for row in own] == ["conf.ini", "threshold"]
    assert {**own[0], "policy": "", "on_frontier": 0} == {**own[1], "policy": "", "on_frontier": 0}
    usual = told(*SHORT, "--policy", "threshold", "--min-capacity", "1", "--max-capacity", "3")["policies"][-1]
    assert usual["late_share"] > own[0]["late_share"], "scale_out_threshold 1 grows sooner than 5"


def test_a_worth_in_seconds_is_simulated_from_the_configuration_and_recommended(config):
    config.write_text(config.read_text().replace("policy = threshold", "policy = backlog\nlate_worth_s = 20000"))
    found = told(*SHORT, "-c", str(config), "--policy", "backlog:thrifty", "--most-late", "1")
    assert found["policies"][2]["gpu_hours"] > found["policies"][3]["gpu_hours"]
    assert found["recommendation"]["settings"]["late_worth_s"] == "", "the file's is to be taken back"
    own = told(
        *SHORT, "--set", "late_worth_s=20000", "--policy", "backlog", "--min-capacity", "1", "--max-capacity", "3"
    )
    assert own["policies"][2]["gpu_hours"] == found["policies"][2]["gpu_hours"]
    assert own["recommendation"]["settings"]["late_worth_s"] == "20000"


def test_a_key_can_be_set_and_goes_before_the_file(config):
    words = (*SHORT, "-c", str(config), "--policy", "threshold", "--set", "scale_out_threshold=50")
    assert told(*words)["policies"][2]["late_share"] > told(*words[:-2])["policies"][2]["late_share"]


def test_a_sweep_varies_parameters_and_recommends_a_point(tmp_path):
    found = told("--demand", "poisson:days=0.02,rate=0.02", "--sweep")
    assert len(found["policies"]) > len(names("--compare"))
    assert len({row["policy"] for row in found["policies"]}) == len(found["policies"])
    assert any(row["on_frontier"] for row in found["policies"])


# pictures


def test_a_policy_is_drawn_over_time_as_png_and_a_comparison_as_svg(tmp_path):
    pytest.importorskip("matplotlib")
    png, svg = tmp_path / "fleet.png", tmp_path / "frontier.svg"
    assert told(*SHORT, "--policy", "backlog", "--plot", str(png))["plot"] == str(png)
    with Image.open(png) as picture:
        assert picture.width > 500
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 5, "there is something on it"
    assert f"{svg} is drawn." in run(*SHORT, "--compare", "--plot", str(svg)).stdout
    assert ET.parse(svg).getroot().tag.endswith("svg")


def test_without_matplotlib_it_says_what_to_install_before_anything_is_simulated(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run(*SHORT, "--plot", str(tmp_path / "fleet.png"), code=1)
    assert "matplotlib" in done.stderr
    assert "install" in done.stderr
    assert done.stdout == ""


# decisions of a real fleet


@pytest.fixture
def decisions(tmp_path: Path) -> Path:
    path = tmp_path / "why.jsonl"
    lines = []
    for number in range(4):
        snapshot = Snapshot(
            at_s=1e9 + 15 * number,
            visible=3 * number,
            target=1,
            serving=1,
            service_s=20.0,
            boot_s=180.0,
            max_capacity=6,
        )
        decision = {"capacity": 1, "policy": "threshold", "reasons": ["few wait"], "hold": ""}
        lines.append({"at_s": snapshot.at_s, "snapshot": dataclasses.asdict(snapshot), "decision": decision})
    lines.append({"at_s": 1e9 + 60, "snapshot": None, "decision": {**decision, "capacity": None, "hold": "no counts"}})
    path.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    return path


def test_replay_puts_another_policy_beside_what_was_decided(decisions):
    found = told("--replay", str(decisions), "--policy", "keda-1")
    assert [one["decided"]["capacity"] for one in found["decisions"]] == [1, 1, 1, 1, None]
    wanted = [one["others"]["keda-1"] for one in found["decisions"]]
    assert wanted[-1] is None
    assert wanted[2]["capacity"] == 6, "six wait, one each; it looks every 30 s"
    assert found["policies"][0]["compared"] == 4
    lines = run("--replay", str(decisions), "--policy", "keda-1").stdout.splitlines()
    assert lines[0].split() == ["at", "waiting", "serving", "decided", "keda-1"]
    assert lines[3].endswith("1 (threshold)       6")
    assert lines[-1].startswith("keda-1: other than decided in ")


def test_replay_shows_reasons_at_a_terminal(decisions):
    shown = terminal("--replay", str(decisions), "--policy", "keda-1", columns=120)
    assert "few wait" in shown
    assert "6 tasks, 1 each" in shown
    assert "no counts" in shown


# asked wrongly


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["--demand", "sd:load=x"], "demand"),
        (["--trace", "none.csv"], "trace"),
        (["--policy", "magic"], "policy"),
        (["--set", "magic=1"], "setting"),
        (["--plot", "fleet.pdf"], "picture"),
        (["--replay", "none.jsonl"], "replay"),
        (["-c", "none.ini"], "configuration"),
    ],
)
def test_what_is_wrong_is_called_by_its_name(words, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = json.loads(run(*words, "--json", code=2).stdout)
    assert (told["kind"], told["error"].partition(" has ")[0]) == (kind, f"the {kind}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--demand", "sd:load=x"], "demand sd: load is 'x'"),
        (["--trace", "none.csv"], "none.csv: cannot be read"),
        (["--trace", "a", "--demand", "b"], "--trace and --demand: give one of them"),
        (["--policy", "magic"], "'magic' is not known"),
        (["--set", "magic=1"], "--set magic=1: expected KEY=VALUE with one of cooldown_s"),
        (["--set", "preset=magic"], "--set preset=magic: expected one of thrifty, balanced, prompt"),
        (["--set", "cooldown_s=-1"], "--set cooldown_s=-1: expected a number from 0 to 86400"),
        (["--boot", "nan"], "'nan' is no number over 0"),
        (["--tick", "0"], "'0' is no number of at least 1 and at most 3600"),
        (["--most-late", "5"], "'5' is no number of at least 0 and at most 1"),
        (["--counts-age", "60:30"], "'60:30' is not FROM:TO"),
        (["--shortage", "1:2:0.5"], "'1:2:0.5' is not FROM:TO:MOST"),
        (["--shortage", "2:5"], "'2:5' is not FROM:TO:MOST"),
        (["--min-capacity", "30"], "--min-capacity 30 is more than --max-capacity, which is 20"),
        (["--plot", "fleet.pdf"], "fleet.pdf: "),
        (["--compare", "--sweep"], "--compare and --sweep"),
        (["--replay", "why.jsonl", "--compare"], "--replay stands without"),
        (["--replay", "none.jsonl"], "none.jsonl: cannot be read"),
        (["-c", "none.ini"], "none.ini"),
    ],
)
def test_what_is_wrong_is_told_at_once(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*words, code=2)
    assert said in done.stderr
    assert done.stdout == ""
    assert json.loads(run(*words, "--json", code=2).stdout)["ok"] is False
