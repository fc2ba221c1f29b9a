"""Finds the running service and talks to it: for the asset, the command line and the tests. It imports no torch."""

import base64
import functools
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx
import numpy as np

from embed_assets.serving.registration import read_record
from embed_assets.store import Store

URL_VARIABLE = "EMBED_ASSETS_SERVICE_URL"
TOKEN_VARIABLE = "EMBED_ASSETS_ADMIN_TOKEN"
API_KEY_VARIABLE = "EMBED_ASSETS_API_KEY"
QUICK_SECONDS = 5.0
EMBED_SECONDS = 300.0
SWAP_SECONDS = 900.0
"""A swap reads, checks and warms a whole model: gigabytes for the largest, from a cold disk."""


class ServiceError(RuntimeError):
    """The service cannot be reached, or refused; says which service, what was asked and what it answered."""

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of the refusal; None when there was no answer."""
        self.code = code


def find_service(store: Store) -> "LiveEmbedder | None":
    """The service named by the environment, else the one that runs on this data directory; None without either.

    Raises:
        StoreError: service.json is damaged.
    """
    url, token = os.environ.get(URL_VARIABLE), os.environ.get(TOKEN_VARIABLE)
    if url:
        return LiveEmbedder(url, token)
    record = read_record(store)
    return None if record is None else LiveEmbedder(record.url, token or record.token)


class LiveEmbedder:
    """A running service, by its URL."""

    def __init__(self, url: str, token: str | None = None, *, api_key: str | None = None) -> None:
        """
        Args:
            token: of the admin endpoints; good for embedding too.
            api_key: of /v1, where the service has one and there is no token; the environment's when not given.
        """
        self.url = url.rstrip("/")
        self._token = token
        self._api_key = token or api_key or os.environ.get(API_KEY_VARIABLE)

    def health(self) -> bool:
        """Whether the process answers and its worker is alive."""
        return self._probe("/health")

    def ready(self) -> bool:
        """Whether a model is loaded."""
        return self._probe("/ready")

    def models(self) -> list[dict[str, Any]]:
        """What requests may name, the live model first."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/models", QUICK_SECONDS, key=self._api_key)["data"]
        return found

    def status(self) -> dict[str, Any]:
        """`model`, `live`, `previous`, `desired`, `last_failure` and more."""
        return self._call("GET", "/admin/status", QUICK_SECONDS, key=self._token)

    def embed(
        self,
        texts: Sequence[str],
        input_type: Literal["query", "passage"] = "query",
        *,
        model: str | None = None,
        truncate: bool = False,
    ) -> tuple[np.ndarray, str]:
        """Unit vectors (texts, dim) float32, and the `name@id` of the one model that computed them all.

        Raises:
            ServiceError
        """
        body = {"input": list(texts), "input_type": input_type, "encoding_format": "base64", "truncate": truncate}
        if model is not None:
            body["model"] = model
        answer = self._call("POST", "/v1/embeddings", EMBED_SECONDS, key=self._api_key, body=body)
        rows = [np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4") for item in answer["data"]]
        return np.stack(rows).astype(np.float32), str(answer["model"])

    def reload(self, checkpoint_id: str | None = None, *, timeout_seconds: float = SWAP_SECONDS) -> dict[str, Any]:
        """Has the service swap to what checkpoint-latest points to, which must be `checkpoint_id` where one is given.

        Another swap under way is waited for.

        Raises:
            ServiceError: the checkpoint was refused, and what was live still is; or no answer in time.
        """
        body = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
        return self._swap("/admin/reload", body, timeout_seconds)

    def rollback(self, *, timeout_seconds: float = SWAP_SECONDS) -> dict[str, Any]:
        """Moves checkpoint-latest to the previous checkpoint and has the service swap to it.

        Raises:
            ServiceError: there is none, or it was refused.
        """
        return self._swap("/admin/rollback", {}, timeout_seconds)

    def _swap(self, path: str, body: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                return self._call("POST", path, max(1.0, deadline - time.monotonic()), key=self._token, body=body)
            except ServiceError as error:
                if error.code != "swap_in_progress" or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def _probe(self, path: str) -> bool:
        try:
            return httpx.get(self.url + path, timeout=QUICK_SECONDS, verify=_tls()).is_success
        except httpx.HTTPError:
            return False

    def _call(
        self, method: str, path: str, seconds: float, *, key: str | None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            response = httpx.request(
                method, self.url + path, json=body, headers=headers, timeout=seconds, verify=_tls()
            )
        except httpx.TimeoutException as error:
            raise ServiceError(f"{self.url} did not answer {method} {path} within {seconds:.0f} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceError(
                f"the service at {self.url} cannot be reached: {error}; start it with `embed-assets serve`, or unset "
                f"{URL_VARIABLE} if it is wrong"
            ) from error
        try:
            document = response.json()
        except ValueError:
            document = None
        if response.is_success and isinstance(document, dict):
            return document
        raise _refusal(f"{method} {self.url}{path}", response, document)


@functools.cache
def _tls() -> ssl.SSLContext:
    """One for all requests: reading the certificates takes longer than most answers."""
    return httpx.create_ssl_context()


def _refusal(asked: str, response: httpx.Response, document: Any) -> ServiceError:
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return ServiceError(f"{asked} answered {response.status_code}, not as embed_assets does: another service?")
    hint = f" ({TOKEN_VARIABLE} or service.json has the token)" if response.status_code == 401 else ""
    return ServiceError(
        f"{asked} was refused with {response.status_code}: {error.get('message')}{hint}",
        status=response.status_code,
        code=error.get("code"),
    )
