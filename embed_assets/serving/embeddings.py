"""`/v1/embeddings`: one request from its bytes to its vectors, with one generation from tokens to answer."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from embed_assets.serving.batching import Batcher, EncodeError, QueueFullError, StoppedError
from embed_assets.serving.engine import Engine, NotReadyError, UnknownModelError
from embed_assets.serving.generation import Generation
from embed_assets.serving.guard import read_body
from embed_assets.serving.metrics import Metrics
from embed_assets.serving.protocol import (
    ApiError,
    EmbeddingsRequest,
    parse_embeddings,
    refuse,
    render_embeddings,
    shortened,
)

MAX_CONCURRENT_REQUESTS = 1024
"""Requests held at once, whatever their size; the queue bounds their tokens."""


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """The endpoint and its limits."""

    engine: Engine
    batcher: Batcher
    metrics: Metrics
    max_inputs: int
    max_request_tokens: int
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONCURRENT_REQUESTS))

    async def endpoint(self, request: Request) -> Response:
        if self.slots.locked():
            said = f"{MAX_CONCURRENT_REQUESTS} requests are being answered, the most allowed; retry in 1 s"
            raise ApiError(503, said, code="overloaded", retry_after_seconds=1)
        async with self.slots:
            wanted = parse_embeddings(await read_body(request), max_inputs=self.max_inputs)
            try:
                with self.engine.lease(wanted.model) as generation:
                    return await self._answer(request, wanted, generation)
            except NotReadyError as error:
                raise ApiError(503, str(error), code="not_ready", retry_after_seconds=1) from error
            except UnknownModelError as error:
                raise ApiError(404, str(error), code="model_not_found", param="model") from error
            except QueueFullError as error:
                retry = error.retry_after_seconds
                raise ApiError(503, str(error), code="overloaded", retry_after_seconds=retry) from error
            except StoppedError as error:
                raise ApiError(503, str(error), code="stopping", retry_after_seconds=5) from error
            except EncodeError as error:
                raise ApiError(500, "the model failed on this request; the service's log says more") from error

    async def _answer(self, request: Request, wanted: EmbeddingsRequest, generation: Generation) -> Response:
        dimensions = _dimensions(wanted, generation)
        rows = await asyncio.to_thread(generation.tokenise, wanted.texts, wanted.input_type)
        rows, truncated = _fitted(rows, wanted, generation)
        tokens = sum(map(len, rows))
        if tokens > self.max_request_tokens:
            refuse(
                "input",
                f"the request holds {tokens} tokens; allowed: at most {self.max_request_tokens} in all inputs together",
                code="too_many_tokens",
            )
        vectors = await self._while_connected(request, self.batcher.submit(generation, rows))
        self.metrics.inputs.labels(generation.model).inc(len(rows))
        self.metrics.tokens.labels(generation.model).inc(tokens)
        self.metrics.truncated.inc(len(truncated))
        body = await asyncio.to_thread(
            render_embeddings,
            shortened(vectors, dimensions),
            encoding_format=wanted.encoding_format,
            model=generation.model,
            tokens=tokens,
            truncated=truncated,
            cuts_reported=wanted.truncate,
        )
        return Response(body, media_type="application/json")

    async def _while_connected(self, request: Request, future: "Future[np.ndarray]") -> np.ndarray:
        """The vectors; if the client leaves first, its rows leave the queue.

        Raises:
            ClientDisconnect: nobody waits for the answer any more.
        """
        answer: asyncio.Future[Any] = asyncio.wrap_future(future)
        gone: asyncio.Future[Any] = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return cast(np.ndarray, answer.result())
            self.metrics.cancelled.inc()
            raise ClientDisconnect
        finally:
            answer.cancel()
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _dimensions(wanted: EmbeddingsRequest, generation: Generation) -> int:
    dimensions = wanted.dimensions or generation.dimension
    if dimensions not in generation.dimensions:
        allowed = ", ".join(map(str, generation.dimensions))
        why = "" if len(generation.dimensions) > 1 else "; this model was not trained to be cut shorter"
        refuse("dimensions", f"'dimensions' is {dimensions}; allowed for {generation.model}: {allowed}{why}")
    return dimensions


def _fitted(
    rows: list[list[int]], wanted: EmbeddingsRequest, generation: Generation
) -> tuple[list[list[int]], Sequence[int]]:
    """Rows no longer than the model allows, and which inputs were cut for it: only where the request asks for it.

    Raises:
        ApiError: 400, an input is too long.
    """
    allowed = generation.max_tokens
    long = [index for index, row in enumerate(rows) if len(row) > allowed]
    if not long:
        return rows, ()
    if not wanted.truncate:
        others = f" (and {len(long) - 1} more)" if len(long) > 1 else ""
        refuse(
            "input",
            f"input {long[0]} has {len(rows[long[0]])} tokens{others}; allowed: at most {allowed} each; split it, or "
            'send "truncate": true to have its end cut off',
            code="context_length_exceeded",
        )
    fitted = list(rows)
    for index in long:
        fitted[index] = generation.cut(rows[index])
    return fitted, long
