"""The three ways in which the real server says no; it knows no routes and no HTTP."""

from __future__ import annotations

from typing import Any


class EngineError(Exception):
    """An exception inside the WebUI, answered by its own handler; `name` is the class that it shows."""

    def __init__(self, name: str, errors: str = "", *, status: int = 500, detail: str = "") -> None:
        super().__init__(errors or detail)
        self.status = status
        self.body = {"error": name, "detail": detail, "body": "", "errors": errors}


class Invalid(Exception):
    """A body that does not fit its route's fields: 422 with one entry for each thing wrong."""

    def __init__(self, *problems: dict[str, Any]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.status = 422
        self.body: dict[str, Any] = {"detail": list(problems)}


class Plain(Exception):
    """What the web framework itself refuses, before the WebUI sees it: `{"detail": "…"}`."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {"detail": detail}


def refused(status: int, detail: str) -> EngineError:
    """Return the WebUI's deliberate refusal with `status`: its words are in `detail`, not in `errors`."""
    return EngineError("HTTPException", status=status, detail=detail)
