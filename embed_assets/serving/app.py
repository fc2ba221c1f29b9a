"""The service's HTTP face: routes, access, limits. It computes nothing and waits for everything off the event loop.

`/health` and `/ready` answer while the model is busy, since encoding, tokenising, rendering and reloading happen in
threads. Every error is OpenAI's error object; none carries a stack trace.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from embed_assets.serving.admin import Admin
from embed_assets.serving.batching import Batcher
from embed_assets.serving.embeddings import Embeddings
from embed_assets.serving.engine import Engine, NotReadyError
from embed_assets.serving.guard import Guard, error_response
from embed_assets.serving.metrics import Metrics
from embed_assets.serving.protocol import ApiError
from embed_assets.serving.reconcile import Reconciler

Background = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Service:
    """The parts that answer requests, put together by `serving.serve`."""

    engine: Engine
    batcher: Batcher
    reconciler: Reconciler
    metrics: Metrics
    admin_token: str
    api_key: str | None
    """Bearer token of /v1; anyone may embed without one."""
    max_inputs: int
    max_request_tokens: int
    background: tuple[Background, ...] = field(default_factory=tuple)
    """Run beside the service, cancelled when it ends."""


def build_app(service: Service) -> Starlette:
    """The ASGI application."""
    embeddings = Embeddings(
        engine=service.engine,
        batcher=service.batcher,
        metrics=service.metrics,
        max_inputs=service.max_inputs,
        max_request_tokens=service.max_request_tokens,
    )
    admin = Admin(service.engine, service.reconciler, service.batcher)
    public = Guard(service.metrics, ())
    keyed = Guard(service.metrics, _keys(service))
    owned = Guard(service.metrics, (service.admin_token,))

    async def health(_: Request) -> Response:
        alive = service.batcher.alive
        return JSONResponse({"status": "ok" if alive else "worker died"}, status_code=200 if alive else 500)

    async def ready(_: Request) -> Response:
        try:
            return JSONResponse({"status": "ready", "model": service.engine.current.model})
        except NotReadyError as error:
            raise ApiError(503, str(error), code="not_ready", retry_after_seconds=1) from error

    async def metrics(_: Request) -> Response:
        return Response(await asyncio.to_thread(service.metrics.render), media_type=CONTENT_TYPE_LATEST)

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": _model_list(service.engine)})

    return Starlette(
        routes=[
            Route("/health", public(health)),
            Route("/ready", public(ready)),
            Route("/metrics", public(metrics)),
            Route("/v1/models", keyed(models)),
            Route("/v1/embeddings", keyed(embeddings.endpoint), methods=["POST"]),
            Route("/admin/status", owned(admin.status)),
            Route("/admin/reload", owned(admin.reload), methods=["POST"]),
            Route("/admin/rollback", owned(admin.rollback), methods=["POST"]),
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=_lifespan(service),
    )


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods."""
    assert isinstance(error, HTTPException)
    said = {
        404: f"there is no {request.url.path}; see /v1/models, /v1/embeddings, /health, /ready, /metrics",
        405: f"{request.method} is not allowed on {request.url.path}",
    }
    response = error_response(ApiError(error.status_code, said.get(error.status_code, error.detail)))
    response.headers.update(error.headers or {})
    return response


def _keys(service: Service) -> tuple[str, ...]:
    """Who may embed: everyone without an API key; with one also the admin, so that the asset can check its swap."""
    return (service.api_key, service.admin_token) if service.api_key else ()


def _model_list(engine: Engine) -> list[dict[str, Any]]:
    """Models by every exact name that requests may give, and the short names of the live one."""
    generations = engine.generations()
    listed = [(generation.model, generation) for generation in generations]
    if generations:
        listed += [(alias, generations[0]) for alias in sorted(generations[0].aliases)]
    return [
        {
            "id": name,
            "object": "model",
            "created": generation.created,
            "owned_by": "embed-assets",
            "checkpoint_id": generation.checkpoint_id,
            "space_id": generation.space_id,
            "dimension": generation.dimension,
            "max_tokens": generation.max_tokens,
            "live": generation is generations[0],
        }
        for name, generation in listed
    ]


def _lifespan(service: Service) -> Callable[[Starlette], Any]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.metrics.watch(service.engine.generations, lambda: service.batcher.queued_tokens)
        tasks = [asyncio.create_task(run()) for run in service.background]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await asyncio.to_thread(service.batcher.stop)

    return lifespan
