"""The job API's own word on whether it is well, and where a job is asked for."""

import pytest
import responses

from scheduler.domain.errors import EngineDown
from scheduler.engines.job_api_client import JobApiClient

URL = "http://127.0.0.1:8000"


@pytest.fixture
def api():
    with responses.RequestsMock() as mock:
        yield mock


def is_well(client):
    try:
        client.require_health()
    except EngineDown:
        return False
    return True


@pytest.mark.parametrize("said", [{"status": "healthy", "message": "ok"}, {"status": "ok"}, {}, []])
def test_an_api_that_answers_is_well_unless_it_says_otherwise(api, said):
    api.get(f"{URL}/health", json=said)
    assert is_well(JobApiClient(f"{URL}/"))


@pytest.mark.parametrize("status", ["unhealthy", "Starting"])
def test_an_api_that_says_that_it_is_not_well_is_down(api, status):
    api.get(f"{URL}/health", json={"status": status, "message": "ComfyUI does not answer"})
    with pytest.raises(EngineDown, match="ComfyUI does not answer"):
        JobApiClient(URL).require_health()


@pytest.mark.parametrize("more", [{"status": 503}, {"status": 404}, {"body": "<html>"}])
def test_what_is_no_answer_of_a_job_api_is_down(api, more):
    api.get(f"{URL}/health", **more)
    assert not is_well(JobApiClient(URL))


def test_a_jobs_id_cannot_lead_elsewhere(api):
    api.get(f"{URL}/api/v1/jobs/..%2F..%2Fhealth%3Fx", json={"found": True})
    assert JobApiClient(URL).job("../../health?x") == {"found": True}
