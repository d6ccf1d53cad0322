"""A gate before an emulator that refuses calls by IAM action, as AWS does and emulators do not."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

SERVICES = {"AmazonSQS": "sqs", "DynamoDB_20120810": "dynamodb"}
S3_ACTIONS = {
    ("HEAD", True): "s3:GetObject",
    ("GET", True): "s3:GetObject",
    ("PUT", True): "s3:PutObject",
    ("DELETE", True): "s3:DeleteObject",
    ("HEAD", False): "s3:ListBucket",
    ("PUT", False): "s3:CreateBucket",
}
SUBRESOURCES = {"publicAccessBlock": "BucketPublicAccessBlock", "encryption": "EncryptionConfiguration"}


@dataclass(slots=True)
class Gate:
    """What passes: with `allowed` only that, else all but `denied`. `simulated` are the answers of IAM's simulator by
    action; without one the simulator itself is refused. Answers are dated `late_s` seconds from the truth.
    """

    url: str = ""
    denied: frozenset[str] = frozenset()
    allowed: frozenset[str] | None = None
    denial_code: str = "AccessDenied"
    simulated: Mapping[str, str] = field(default_factory=dict)
    identity_arn: str = ""
    late_s: float = 0.0
    refused: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)

    def lets(self, action: str) -> bool:
        passes = action not in self.denied and (self.allowed is None or action in self.allowed)
        (self.passed if passes else self.refused).append(action)
        return passes


@contextlib.contextmanager
def gate(upstream: str) -> Iterator[Gate]:
    """Open a gate before the emulator at `upstream`; its rules may be changed while it is open."""
    rules = Gate()

    class Handler(_Handler):
        upstream_host = urlsplit(upstream).netloc
        gate = rules

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    rules.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield rules
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def action_of(method: str, target: str, headers: Mapping[str, str], body: bytes) -> str:
    """Return the IAM action that AWS would ask for."""
    service, _, operation = headers.get("x-amz-target", "").partition(".")
    if service:
        return f"{SERVICES[service]}:{operation.removesuffix('Batch')}"
    if action := parse_qs(body.decode(errors="replace")).get("Action"):
        return f"{headers['authorization'].split('/')[3]}:{action[0]}"
    url = urlsplit(target)
    for name, permission in SUBRESOURCES.items():
        if name in url.query:
            return f"s3:{'Put' if method == 'PUT' else 'Get'}{permission}"
    return S3_ACTIONS[method, "/" in url.path.strip("/")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream_host: str
    gate: Gate

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        action = action_of(self.command, self.path, headers, body)
        if action == "iam:SimulatePrincipalPolicy" and self.gate.simulated:
            self._send(200, {"content-type": "text/xml"}, self._simulation(body))
        elif action == "sts:GetCallerIdentity" and self.gate.identity_arn:
            self._send(200, {"content-type": "text/xml"}, self._identity())
        elif not self.gate.lets(action) or action.startswith("iam:"):
            self._refuse(action, headers)
        else:
            self._pass_on(headers, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - named by http.server

    def _pass_on(self, headers: Mapping[str, str], body: bytes) -> None:
        connection = http.client.HTTPConnection(self.upstream_host, timeout=10)
        try:
            connection.request(self.command, self.path, body, {**headers, "connection": "close"})
            answer = connection.getresponse()
            data = answer.read()
            kept = {
                name.lower(): value
                for name, value in answer.getheaders()
                if name.lower() not in {"connection", "transfer-encoding", "keep-alive", "server"}
            }
            if self.command != "HEAD":
                kept["content-length"] = str(len(data))
            self._send(answer.status, kept, data)
        finally:
            connection.close()

    def _refuse(self, action: str, headers: Mapping[str, str]) -> None:
        code = self.gate.denial_code
        said = f"User: test is not authorized to perform: {action}"
        if "x-amz-target" in headers:
            kind = "application/x-amz-json-1.0"
            text = f'{{"__type": "com.amazon.coral.service#{code}", "message": "{said}"}}'
            status = 403 if action.startswith("sqs:") else 400
        else:
            kind = "text/xml"
            error = f"<Error><Code>{code}</Code><Message>{said}</Message></Error>"
            text = error if action.startswith("s3:") else f"<ErrorResponse>{error}</ErrorResponse>"
            status = 403
        self._send(status, {"content-type": kind}, b"" if self.command == "HEAD" else text.encode())

    def _simulation(self, body: bytes) -> bytes:
        asked = parse_qs(body.decode())["ActionNames.member.1"][0]
        decision = self.gate.simulated[asked]
        member = f"<member><EvalActionName>{asked}</EvalActionName><EvalDecision>{decision}</EvalDecision></member>"
        results = f"<EvaluationResults>{member}</EvaluationResults><IsTruncated>false</IsTruncated>"
        return _xml("SimulatePrincipalPolicy", results)

    def _identity(self) -> bytes:
        account = self.gate.identity_arn.split(":")[4]
        return _xml("GetCallerIdentity", f"<Arn>{self.gate.identity_arn}</Arn><Account>{account}</Account>")

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        true_s = parsedate_to_datetime(headers.get("date") or formatdate(usegmt=True)).timestamp()
        sent = {**headers, "date": formatdate(true_s + self.gate.late_s, usegmt=True)}
        sent.setdefault("content-length", str(len(body)))
        self.send_response_only(status)
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _xml(operation: str, result: str) -> bytes:
    return f"<{operation}Response><{operation}Result>{result}</{operation}Result></{operation}Response>".encode()
