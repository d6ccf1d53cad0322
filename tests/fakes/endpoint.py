"""A tiny HTTP server in place of an AWS endpoint, for the answers that the emulators never give."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = tuple[int, bytes]
Respond = Callable[[str, str, bytes], Reply]
"""(method, path, body) to (status, body)."""

DENIED_JSON = b'{"__type": "com.amazon.coral.service#AccessDeniedException", "message": "no policy allows it"}'
DENIED_XML = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

IDENTITY_XML = (
    b"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/ann</Arn>"
    b"<UserId>A</UserId><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
)


@contextlib.contextmanager
def endpoint(respond: Respond, *, is_aws: bool = True) -> Iterator[str]:
    """Answer every request on a free port of loopback with what `respond` says; yield the URL.

    AWS gives every answer an id; what merely stands in its way does not.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = respond(self.command, self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            if is_aws:
                self.send_header("x-amzn-RequestId", "request-1")
                self.send_header("x-amz-request-id", "request-1")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 - named by http.server

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def denying() -> contextlib.AbstractContextManager[str]:
    """Refuse everything, as AWS does to a role without the right: in XML where S3 is spoken, else in JSON."""

    def respond(method: str, _path: str, _body: bytes) -> Reply:
        return 403, DENIED_JSON if method == "POST" else DENIED_XML

    return endpoint(respond)


def garbling(body: bytes) -> Respond:
    """Tell whose credentials these are, as STS does, and answer all else with 200 and `body`."""

    def respond(_method: str, _path: str, asked: bytes) -> Reply:
        return 200, IDENTITY_XML if b"GetCallerIdentity" in asked else body

    return respond
