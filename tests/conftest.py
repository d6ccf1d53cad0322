"""What all tests share: no way out to the real AWS, the emulators (one of each for a process of tests), a clock."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator

import botocore.session
import pytest
import structlog
from aws_servers import NOWHERE, Cloud, aws_environ, running
from fakes import FakeClock

# Where Python was told to keep no compiled modules, each process that a test starts would compile all of the scheduler
# again, and pytest the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Each session of boto3 would read its services' models from disk again, a third of a second for each; they are the
# same.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)  # type: ignore[attr-defined]


@pytest.fixture(scope="session", autouse=True)
def no_real_aws() -> Iterator[None]:
    """A client that a test forgets to point somewhere reaches nothing, with credentials that open nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in aws_environ(NOWHERE).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def logging_as_found() -> Iterator[None]:
    """What a test, or a command it runs in this process, makes of the logging ends with the test."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="session")
def moto() -> Iterator[Cloud]:
    """moto's server. It may deliver a message twice when receives race, and accepts superseded receipts."""
    with running("moto") as cloud:
        yield cloud


@pytest.fixture(scope="session")
def ministack() -> Iterator[Cloud]:
    """ministack: the stricter of the two, and the one to count exactly on."""
    with running("ministack") as cloud:
        yield cloud


@pytest.fixture(params=["moto", "ministack"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """Each emulator in turn."""
    each: Cloud = request.getfixturevalue(request.param)
    return each


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves only when told."""
    return FakeClock()
