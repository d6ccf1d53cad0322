"""Small real implementations of the ports, in memory, for tests of what stands on the ports.

The contract suites run over them as over the real adapters, so that they cannot promise what those do not keep.
"""

from fakes.announcing import FakeTopic, FakeWebhooks
from fakes.clock import FakeClock
from fakes.engine import FakeAnswer, FakeEngine
from fakes.faults import Faults
from fakes.images import FakeImageStore
from fakes.inputs import FakeInputs
from fakes.previews import FakePreviews
from fakes.queue import FakeQueue
from fakes.tasks import FakeTaskStore

__all__ = [
    "FakeAnswer",
    "FakeClock",
    "FakeEngine",
    "FakeImageStore",
    "FakeInputs",
    "FakePreviews",
    "FakeQueue",
    "FakeTaskStore",
    "FakeTopic",
    "FakeWebhooks",
    "Faults",
]
