"""Addresses that are refused before anything is asked of the network, tried in a network with nothing in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile import PUBLIC, REACHING, REFUSED

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("unreached.py")
FIELD = "payload.init_images.0"


def alone() -> list[str]:
    """The command that gives a program a network of its own, where the system allows that."""
    command = ["unshare", "--map-root-user", "--net"]
    try:
        allowed = subprocess.run([*command, "true"], capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        allowed = False
    return command if allowed else []


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [*alone(), sys.executable, str(PROGRAM)],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""},
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_never_asked_for(outcomes, name):
    outcome = outcomes["refused"][name]
    assert (outcome["error"], outcome["field"]) == ("Rejected", FIELD), outcome
    assert outcome["reached"] == []
    assert outcome["message"].startswith(f"{FIELD}: ")


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("a name is looked up", "socket.getaddrinfo pictures.example"),
        ("a public address is dialled", f"socket.connect ('{PUBLIC}', 80)"),
        ("a name is dialled where it was found", f"socket.connect ('{PUBLIC}', 443)"),
        ("an opened address is dialled", "socket.connect ('10.0.0.5', 22)"),
        ("an opened name is dialled", "socket.connect ('10.0.0.5', 80)"),
        ("a fragment is no host", f"socket.connect ('{PUBLIC}', 80)"),
    ],
)
def test_the_watch_sees_what_does_reach_for_the_network(outcomes, name, reached):
    outcome = outcomes["reaching"][name]
    assert outcome["reached"] == [reached]
    assert (outcome["error"], outcome["field"]) == ("Transient", FIELD)
    assert set(outcomes["reaching"]) == set(REACHING)


def test_there_are_many_and_no_message_shows_a_login_or_tells_what_a_name_leads_to(outcomes):
    assert len(REFUSED) > 200
    said = "".join(outcome["message"] for outcome in outcomes["refused"].values())
    assert "secret" not in said
    assert said.isprintable()
    for name, outcome in outcomes["refused"].items():
        if name.startswith("dns: "):
            assert not any(answer in outcome["message"] for answer in REFUSED[name].answers or ()) or "no" in name
