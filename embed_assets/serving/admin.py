"""The admin endpoints: reload, rollback, status. An id is all a caller may name; the store says where it lies."""

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from embed_assets.serving.batching import Batcher
from embed_assets.serving.engine import Engine, NotReadyError, Swap, SwapInProgressError
from embed_assets.serving.generation import UnknownCheckpointError
from embed_assets.serving.guard import read_body
from embed_assets.serving.protocol import ApiError, parse_reload
from embed_assets.serving.reconcile import NotDesiredError, Reconciler

MAX_ADMIN_BODY_BYTES = 64 * 1024
RETRY_SECONDS = 2


class Admin:
    """The endpoints of whoever holds the admin token."""

    def __init__(self, engine: Engine, reconciler: Reconciler, batcher: Batcher) -> None:
        self._engine = engine
        self._reconciler = reconciler
        self._batcher = batcher

    async def status(self, _: Request) -> Response:
        desired = await asyncio.to_thread(self._reconciler.status)
        document = {**self._engine.status(), **desired, "queued_tokens": self._batcher.queued_tokens}
        document["model"] = self._engine.current.model if self._engine.ready else None
        return JSONResponse(document)

    async def reload(self, request: Request) -> Response:
        checkpoint_id = parse_reload(await read_body(request, MAX_ADMIN_BODY_BYTES))
        return await self._answer(lambda: self._reconciler.reload(checkpoint_id))

    async def rollback(self, request: Request) -> Response:
        await read_body(request, MAX_ADMIN_BODY_BYTES)
        return await self._answer(self._reconciler.rollback)

    async def _answer(self, swap: Callable[[], Swap]) -> Response:
        """Runs the swap in a thread, to its end even if the caller leaves; its refusal names what stays live."""
        try:
            done = await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(swap)))
        except SwapInProgressError as error:
            raise ApiError(409, str(error), code="swap_in_progress", retry_after_seconds=RETRY_SECONDS) from error
        except NotDesiredError as error:
            raise ApiError(409, str(error), code="not_desired", param="checkpoint_id") from error
        except UnknownCheckpointError as error:
            raise ApiError(404, self._refused(error), code="checkpoint_not_found", param="checkpoint_id") from error
        except Exception as error:
            if not type(error).__module__.startswith("embed_assets."):
                raise
            raise ApiError(422, self._refused(error), code="swap_refused") from error
        return JSONResponse(done.to_json())

    def _refused(self, error: Exception) -> str:
        try:
            return f"{error}; {self._engine.current.model} stays live"
        except NotReadyError:
            return f"{error}; nothing is live"
