"""What keeps the daemon from starting, and what does not."""

from __future__ import annotations

import socket
import subprocess
import sys
from urllib.parse import urlsplit

from daemon_process import MAIN, Start
from world import Engines, World


def test_a_wrong_configuration_ends_it_with_2_and_tells_all_that_is_wrong(world: World) -> None:
    conf = world.folder / "conf.ini"
    conf.write_text(
        "[aws]\naws_region = mars\nsqs_queue = x\n[sd_api]\nsd_api_base_url = nowhere\n"
        "[scheduler]\npoll_interval = 99\nmax_runs = many\n"
    )
    done = subprocess.run(
        [sys.executable, str(MAIN), "-c", str(conf)], capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 2
    said = done.stdout + done.stderr
    for words in ("mars", "sqs_queue", "dynamodb_table", "s3_bucket", "nowhere", "99", "many"):
        assert words in said, said
    assert "Traceback" not in said


def test_a_missing_file_is_a_wrong_configuration(world: World) -> None:
    command = [sys.executable, str(MAIN), "-c", str(world.folder / "absent.ini")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "absent.ini" in done.stdout + done.stderr


def test_a_health_port_that_is_taken_ends_it_with_2_and_says_so(world: World, engine: Engines, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon = start(world.conf(engine().base_url, health_port=port))
        assert daemon.ended() == 2
    assert str(port) in daemon.stderr
    assert "Traceback" not in daemon.stderr


def test_health_and_metrics_tell_what_was_done(world: World, engine: Engines, start: Start) -> None:
    daemon = start(world.conf(engine().base_url))
    for n in range(3):
        world.send_task(f"task {n}")
    world.until_done()

    report = daemon.until_health(200)
    assert (report["status"], report["held"]) == ("healthy", [])
    status, text = daemon.get("/metrics")
    assert status == 200
    assert 'outcome="completed"} 3.0' in text.decode()
    assert daemon.get("/nowhere")[0] == 404
    assert urlsplit(daemon.wait_for("scheduler_starting")["health"]).hostname == "127.0.0.1"
