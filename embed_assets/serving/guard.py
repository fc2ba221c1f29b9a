"""What stands before every endpoint: access, the body's size, errors in one shape, counting and timing."""

import hmac
import logging
import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from embed_assets.serving.metrics import Metrics
from embed_assets.serving.protocol import MAX_BODY_BYTES, ApiError

CLIENT_LEFT = 499
"""Nobody reads this status; it is counted."""

logger = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]


async def read_body(request: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body, or a refusal as soon as it is longer than `limit` bytes.

    Raises:
        ApiError: 413.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise ApiError(413, f"the request body is larger than {limit} bytes, the most allowed", code="too_large")
        parts.append(part)
    return b"".join(parts)


class Guard:
    """Wraps an endpoint: access first, then the answer or its error, counted and timed."""

    def __init__(self, metrics: Metrics, tokens: tuple[str, ...]) -> None:
        """Any of `tokens` is let in; everyone when there are none."""
        self._metrics = metrics
        self._tokens = tokens

    def __call__(self, endpoint: Endpoint) -> Endpoint:
        async def guarded(request: Request) -> Response:
            started = time.monotonic()
            try:
                self._admit(request)
                response = await endpoint(request)
            except ApiError as error:
                response = error_response(error)
            except ClientDisconnect:
                response = Response(status_code=CLIENT_LEFT)
            except Exception:
                logger.exception("%s %s failed", request.method, request.url.path)
                response = error_response(ApiError(500, "internal error; the service's log says more"))
            path = request.url.path
            self._metrics.requests.labels(path, str(response.status_code)).inc()
            self._metrics.request_seconds.labels(path).observe(time.monotonic() - started)
            return response

        return guarded

    def _admit(self, request: Request) -> None:
        """
        Raises:
            ApiError: 401, the bearer token is missing or wrong. Compared in constant time.
        """
        if not self._tokens:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        offered = given.strip().encode() if scheme.lower() == "bearer" else b""
        matches = [
            hmac.compare_digest(offered, token.encode()) for token in self._tokens
        ]  # all, whatever the first says
        if not any(matches):
            said = "the bearer token is not valid here" if offered else "a bearer token is needed"
            raise ApiError(401, f"{said}: send the header 'Authorization: Bearer TOKEN'", code="invalid_api_key")


def error_response(error: ApiError) -> Response:
    headers = {}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error.to_json(), status_code=error.status, headers=headers)
