"""The endpoints: what each takes and answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib.metadata import version
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import PlainTextResponse, Response
from fastapi.security import HTTPBearer

from ruac.model import weights_sha256
from ruac.serve.engine import Engine
from ruac.serve.gate import Door, Gate
from ruac.serve.lane import Lane
from ruac.serve.problems import described, translate_errors
from ruac.serve.schema import ID_PATTERN, EverythingIn, EverythingOut, HealthOut, ImageOut, PredictIn, PredictOut
from ruac.serve.settings import Deadline
from ruac.serve.uploads import BODY, receive

SWEEP = 60.0  # seconds between two looks for what has expired
ASKED = described(404, 408, 413, 415, 422, 503, 504)
ImageId = Annotated[str, Path(pattern=ID_PATTERN, description="as the upload returned it")]


def build(engine: Engine, lane: Lane, door: Door) -> FastAPI:
    """The application of one worker, its gate before it."""
    settings = engine.settings
    app = FastAPI(
        title="ruac",
        version=version("ruac"),
        description="Segment Anything with a pixel-wise uncertainty: upload an image, then ask about its objects.",
        docs_url=None,  # its pages fetch scripts from elsewhere
        redoc_url=None,
        lifespan=_sweeping(engine),
        responses=described(400, 401, 403, 405, 429, 500),
        dependencies=[] if settings.token is None else [Depends(HTTPBearer(auto_error=False))],
    )
    health = HealthOut(
        status="ok",
        model=settings.model,
        model_sha256=weights_sha256(engine.model),
        calibrated=engine.guarantee is not None,
        ruac=version("ruac"),
    )

    async def answer(request: Request, job: Callable[[Deadline], bytes], status: int = 200) -> Response:
        """What the job makes, from the lane."""
        gone = asyncio.create_task(_until_gone(request))
        try:
            body = await lane.run(job, request.state.deadline, gone)
        finally:
            gone.cancel()
        return Response(body, status, media_type="application/json")

    @app.post(
        "/images",
        status_code=201,
        response_model=ImageOut,
        responses=described(408, 413, 415, 422, 503, 504),
        openapi_extra={"requestBody": BODY},
    )
    async def upload(request: Request) -> Response:
        """Keep an image, to be asked about: the body itself, or the file of a form."""
        await asyncio.to_thread(engine.spool.require_place)
        with engine.spool.receive() as incoming:
            await receive(request, incoming, settings.max_upload)
            return await answer(request, lambda _: engine.accept(incoming), 201)

    @app.post("/images/{image}/predict", response_model=PredictOut, responses=ASKED)
    async def predict(request: Request, image: ImageId, asked: PredictIn) -> Response:
        """Masks of the objects that the prompts are about."""
        return await answer(request, lambda deadline: engine.predict(image, asked, deadline))

    @app.post("/images/{image}/everything", response_model=EverythingOut, responses=ASKED)
    async def everything(request: Request, image: ImageId, asked: EverythingIn) -> Response:
        """All objects that a grid of clicks finds."""
        return await answer(request, lambda deadline: engine.everything(image, asked, deadline))

    @app.get("/health", responses=described(503))
    async def state() -> HealthOut:
        """Whether new work is taken, and what model does it."""
        return health

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Figures of all workers, for Prometheus."""
        await asyncio.to_thread(_sweep, engine)
        return PlainTextResponse(await asyncio.to_thread(engine.metrics.text))

    translate_errors(app, settings, lambda: lane.wait)
    app.add_middleware(Gate, settings=settings, door=door, metrics=engine.metrics, wait=lambda: lane.wait)
    return app


async def _until_gone(request: Request) -> None:
    """Ends when the client has closed the connection; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _sweeping(engine: Engine) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """While the application lives, removes what has expired, on disk and in memory."""

    async def sweep() -> None:
        while True:
            await asyncio.to_thread(_sweep, engine)
            await asyncio.sleep(min(SWEEP, engine.settings.ttl))

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(sweep())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    return life


def _sweep(engine: Engine) -> None:
    engine.metrics.spool_bytes.set(engine.spool.sweep())
    images, size = engine.cache.figures()
    engine.metrics.cached_images.set(images)
    engine.metrics.cached_bytes.set(size)
