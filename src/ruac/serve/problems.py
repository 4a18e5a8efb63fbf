"""What went wrong, as an answer: a status, and a line that says what to do."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from ruac.data.image import ImageError
from ruac.errors import one_line
from ruac.predictor import PromptError
from ruac.serve.engine import LargeAnswerError, UnknownImageError
from ruac.serve.gate import refuse
from ruac.serve.lane import BusyError, GoneError
from ruac.serve.schema import Problem
from ruac.serve.settings import LateError, Settings
from ruac.serve.spool import FullError

LOG = logging.getLogger("ruac.serve")
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
RETRY = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}}}
KNOWN: dict[int, tuple[str, dict[str, Any]]] = {
    400: ("The body, or the request itself, is broken", {}),
    401: ("The server has a token, and the request has not", {"WWW-Authenticate": {"schema": {"type": "string"}}}),
    403: ("The request comes from where it should not", {}),
    404: ("No such image: never uploaded, or expired", {}),
    405: ("The path has no such method", {"Allow": {"description": "the methods that it has", "schema": {"type": "string"}}}),
    408: ("The body did not arrive in time", {}),
    413: ("The body is too large", {}),
    415: ("The body is of a type that is not understood", {}),
    422: ("The request or the image cannot be used", {}),
    429: ("Too much at once", RETRY),
    500: ("A mistake of the server", {}),
    503: ("The server is being stopped, or its disk is full", RETRY),
    504: ("The work took longer than it may take", {}),
}


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI."""
    return {status: {"model": Problem, "description": KNOWN[status][0], "headers": KNOWN[status][1]} for status in statuses}


def translate_errors(app: FastAPI, settings: Settings, wait: Callable[[], int]) -> None:
    """Makes an answer of every error, in words for those that clients can help; wait: seconds, when there are too many."""
    late = f"the work took longer than the {settings.timeout:g} seconds that it may take; ask for less at once"

    def answer(kind: type[Exception], status: int, words: str | None = None, retry: bool = False) -> None:
        async def respond(_: Request, error: Exception) -> JSONResponse:
            return refuse(status, words or one_line(error), {"Retry-After": str(wait())} if retry else None)

        app.add_exception_handler(kind, respond)

    answer(ImageError, 422)
    answer(PromptError, 422)
    answer(LargeAnswerError, 422)
    answer(
        UnknownImageError,
        404,
        f"no image of that id: upload it; it is kept for {settings.ttl:g} seconds after its last use",
    )
    answer(BusyError, 429, "busy: the request's turn did not come in time; try again", retry=True)
    answer(FullError, 429, "full: no further image can be kept until others expire; try again", retry=True)
    answer(LateError, 504, late)
    answer(GoneError, 400, "the connection was closed before the answer")  # which nobody reads
    answer(ClientDisconnect, 400, "the connection was closed before the end of the body")
    app.add_exception_handler(RequestValidationError, _wrong_request)
    app.add_exception_handler(OSError, _no_disk)
    app.add_exception_handler(Exception, _mistake)


async def _wrong_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return refuse(400, f"the body is not JSON ({first['ctx']['error']})")
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "path"))
    return refuse(422, f"{where or 'the body'}: {first['msg']}"[:500])


async def _no_disk(_: Request, error: Exception) -> JSONResponse:
    """Raises the error again where it is a mistake of the server."""
    if not isinstance(error, OSError) or error.errno not in DISK:
        raise error
    LOG.error("%s", one_line(error))
    return refuse(503, f"the server cannot keep the image: {error.strerror}", {"Retry-After": "10"})


async def _mistake(_: Request, error: Exception) -> JSONResponse:
    """The traceback goes to the log, not to the client."""
    return refuse(500, "a mistake of the server; its log says more")
