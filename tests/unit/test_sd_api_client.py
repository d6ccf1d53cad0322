"""The client's requests and what it makes of statuses, over stubbed HTTP; connections are in the integration tests."""

import base64

import pytest
import requests
import responses
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import ConnectTimeout, ReadTimeout
from urllib3.exceptions import MaxRetryError, NewConnectionError, ProtocolError

from scheduler.domain.errors import EngineDown, EngineLost
from scheduler.engine_http import NobodyListens
from scheduler.sd_api_client import AnswerTimedOut, NoSuchRoute, SdApiClient

URL = "http://127.0.0.1:7861"
API = f"{URL}/sdapi/v1"


@pytest.fixture
def http():
    with responses.RequestsMock() as mock:
        yield mock


def test_reads(http):
    answers = {
        "options": {"sd_model_checkpoint": "a"},
        "sd-models": [{"title": "a"}],
        "samplers": [{"name": "Euler"}],
        "schedulers": [{"label": "Karras"}],
        "progress": {"progress": 0.5},
        "memory": {"ram": {"free": 1}},
    }
    for route, answer in answers.items():
        http.get(f"{API}/{route}", json=answer)
    client = SdApiClient(f"{URL}/")
    assert client.options() == answers["options"]
    assert client.models() == answers["sd-models"]
    assert client.samplers() == answers["samplers"]
    assert client.schedulers() == answers["schedulers"]
    assert client.progress() == answers["progress"]
    assert client.memory() == answers["memory"]


def test_progress_leaves_the_picture_in_the_making_at_the_engine(http):
    http.get(f"{API}/progress", json={}, match=[responses.matchers.query_param_matcher({"skip_current_image": "true"})])
    SdApiClient(URL).progress()


def test_every_request_carries_the_credentials(http):
    http.get(f"{API}/options", json={})
    http.post(f"{API}/interrupt", json={})
    http.post(f"{API}/txt2img", json={})
    client = SdApiClient(URL, ("user", "pä:ss"))
    client.options()
    client.interrupt()
    client.generate("/sdapi/v1/txt2img", b"{}", 5).close()
    expected = "Basic " + base64.b64encode("user:pä:ss".encode()).decode()
    assert [call.request.headers["Authorization"] for call in http.calls] == [expected] * 3


def test_the_environment_has_no_say(http, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    http.get(f"{API}/options", json={})
    http.post(f"{API}/txt2img", json={})
    client = SdApiClient(URL)
    client.options()
    client.generate("/sdapi/v1/txt2img", b"{}", 5).close()
    for call in http.calls:
        assert "Authorization" not in call.request.headers
        assert not call.request.req_kwargs.get("proxies")


def test_a_generating_request_is_plain_json_and_uncompressed(http):
    http.post(f"{API}/txt2img", json={})
    client = SdApiClient(URL)
    for body in (b'{"a":1}', b'{"b":22}'):
        client.generate("/sdapi/v1/txt2img", body, 5).close()
    first, second = (call.request for call in http.calls)
    assert (first.body, second.body) == (b'{"a":1}', b'{"b":22}')
    assert (first.headers["Content-Length"], second.headers["Content-Length"]) == ("7", "8")
    assert first.headers["Content-Type"] == "application/json"
    assert first.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [200, 404, 422, 500, 502])
def test_a_generating_answer_comes_back_whatever_its_status(http, status):
    http.post(f"{API}/txt2img", body=b"words", status=status)
    response = SdApiClient(URL).generate("/sdapi/v1/txt2img", b"{}", 5)
    assert (response.status, response.read(100)) == (status, b"words")


def test_a_body_over_the_bound_is_not_read(http):
    http.post(f"{API}/txt2img", body=b"x" * 101)
    assert SdApiClient(URL).generate("/sdapi/v1/txt2img", b"{}", 5).read(100) is None


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (404, '{"detail":"Not Found"}', NoSuchRoute, "not there"),
        (404, "", NoSuchRoute, "not there"),
        (405, "405: Method Not Allowed", NoSuchRoute, "not there"),
        (401, '{"error":"HTTPException","detail":"Incorrect username or password"}', EngineDown, "api_auth"),
        (500, '{"error":"RuntimeError","detail":"","errors":"boom"}', EngineDown, "boom"),
        (302, "", EngineDown, "302"),
        (200, "<html>", EngineDown, "not JSON"),
        (200, "[]", EngineDown, "no object"),
    ],
)
def test_a_control_answer_that_is_no_good(http, status, body, kind, words):
    http.get(f"{API}/options", body=body, status=status, headers={"Location": f"{URL}/elsewhere"})
    with pytest.raises(EngineDown, match=words) as caught:
        SdApiClient(URL).options()
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("status", "body", "kind"), [(404, "", NoSuchRoute), (401, "{}", EngineDown), (500, "{}", EngineDown)]
)
def test_a_control_request_that_is_not_obeyed(http, status, body, kind):
    http.post(f"{API}/refresh-checkpoints", body=body, status=status)
    with pytest.raises(EngineDown) as caught:
        SdApiClient(URL).refresh_checkpoints(5)
    assert type(caught.value) is kind


def new_connection_error():
    return NewConnectionError(None, "refused")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestsConnectionError(MaxRetryError(None, "/", new_connection_error())), NobodyListens),
        (ConnectTimeout("slow"), EngineDown),
        (requests.exceptions.SSLError("no"), EngineDown),
        (requests.exceptions.InvalidURL("bad"), EngineDown),
        (RequestsConnectionError(ProtocolError("Connection aborted.", TimeoutError("timed out"))), EngineDown),
        (RequestsConnectionError(ProtocolError("Connection aborted.", ConnectionResetError(104))), EngineLost),
        (ReadTimeout("slow"), AnswerTimedOut),
    ],
)
def test_what_became_of_a_request_without_an_answer(http, error, kind):
    http.post(f"{API}/txt2img", body=error)
    with pytest.raises(kind) as caught:
        SdApiClient(URL).generate("/sdapi/v1/txt2img", b"{}", 5)
    assert type(caught.value) is kind
    assert len(http.calls) == 1


@pytest.mark.parametrize("error", [ReadTimeout("slow"), RequestsConnectionError(ProtocolError("Connection aborted."))])
def test_a_control_request_without_an_answer_is_an_engine_down(http, error):
    http.post(f"{API}/interrupt", body=error)
    with pytest.raises(EngineDown, match="interrupt"):
        SdApiClient(URL).interrupt()
