"""The wire format of `/v1/embeddings`: OpenAI's, with two extensions, and every refusal as OpenAI's error object.

It turns bytes into a request and vectors into bytes. It knows no model, no queue and no web framework.
"""

import base64
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, NoReturn, cast

import numpy as np

MAX_BODY_BYTES = 16 * 1024 * 1024
"""300,000 tokens of text are about 1.5 MB; the rest is room for escapes."""
FIELDS = ("input", "model", "encoding_format", "dimensions", "user", "input_type", "truncate")
KINDS = ("query", "passage")
FORMATS = ("float", "base64")

ERROR_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}


class ApiError(Exception):
    """A refusal, in the words the caller reads."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def to_json(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": self.message,
                "type": ERROR_TYPES.get(HTTPStatus(self.status), kind),
                "param": self.param,
                "code": self.code,
            }
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingsRequest:
    """A request whose every field is of the right kind; what the model allows is checked later."""

    texts: tuple[str, ...]
    model: str | None
    """Name, alias or `name@id`; None means whatever is live."""
    encoding_format: Literal["float", "base64"]
    dimensions: int | None
    input_type: Literal["query", "passage"]
    truncate: bool
    """Cut inputs that are too long instead of refusing them."""


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        ApiError: 400, not JSON (NaN and Infinity are none), or not an object.
    """
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, f"the request body is no valid JSON: {said}", code="invalid_json") from error
    if not isinstance(document, dict):
        raise ApiError(400, f"the request body is {_kind(document)}; allowed: a JSON object", code="invalid_json")
    return document


def parse_embeddings(body: bytes, *, max_inputs: int) -> EmbeddingsRequest:
    """
    Raises:
        ApiError: 400, naming the field, what was found and what is allowed.
    """
    document = parse_json(body)
    unknown = sorted(set(document) - set(FIELDS))
    if unknown:
        refuse(unknown[0], f"unknown field {unknown[0]!r}; allowed: {', '.join(FIELDS)}")
    dimensions = document.get("dimensions")
    if dimensions is not None and (not isinstance(dimensions, int) or isinstance(dimensions, bool) or dimensions < 1):
        refuse("dimensions", f"'dimensions' is {_shown(dimensions)}; allowed: a whole number from 1 on")
    model = document.get("model")
    if model is not None and not isinstance(model, str):
        refuse("model", f"'model' is {_kind(model)}; allowed: a string")
    truncate = document.get("truncate")
    if not isinstance(truncate, bool | None):
        refuse("truncate", f"'truncate' is {_shown(truncate)}; allowed: true, false")
    return EmbeddingsRequest(
        texts=_texts(document, max_inputs),
        model=model,
        encoding_format=cast(Literal["float", "base64"], _choice(document, "encoding_format", FORMATS)),
        dimensions=dimensions,
        input_type=cast(Literal["query", "passage"], _choice(document, "input_type", KINDS)),
        truncate=bool(truncate),
    )


def parse_reload(body: bytes) -> str | None:
    """The checkpoint id of a reload; None means what checkpoint-latest points to.

    Raises:
        ApiError: 400.
    """
    document = parse_json(body) if body.strip() else {}
    unknown = sorted(set(document) - {"checkpoint_id"})
    if unknown:
        refuse(unknown[0], f"unknown field {unknown[0]!r}; allowed: checkpoint_id (an id, never a path or URL)")
    checkpoint_id = document.get("checkpoint_id")
    if checkpoint_id is not None and not isinstance(checkpoint_id, str):
        refuse("checkpoint_id", f"'checkpoint_id' is {_kind(checkpoint_id)}; allowed: a string, the checkpoint's id")
    return checkpoint_id


def shortened(vectors: np.ndarray, dimensions: int) -> np.ndarray:  # (texts, dimensions), unit rows
    """The first `dimensions` of each vector, made unit length again, as Matryoshka models are meant to be cut."""
    if dimensions == vectors.shape[1]:
        return vectors
    cut = vectors[:, :dimensions]
    return cast(np.ndarray, cut / np.linalg.norm(cut, axis=1, keepdims=True).clip(min=1e-12))


def render_embeddings(
    vectors: np.ndarray,  # (texts, dim) float32
    *,
    encoding_format: str,
    model: str,
    tokens: int,
    truncated: Sequence[int],
    cuts_reported: bool,
) -> bytes:
    """The response body. Call it in a thread: two thousand vectors take most of a second.

    It is put together vector by vector, so that the interpreter can turn to other threads in between.
    """
    usage: dict[str, Any] = {"prompt_tokens": tokens, "total_tokens": tokens}
    if cuts_reported:
        usage["truncated_inputs"] = list(truncated)
    tail = json.dumps({"model": model, "usage": usage})[1:]
    return b'{"object": "list", "data": [' + b", ".join(_items(vectors, encoding_format)) + b"], " + tail.encode()


def refuse(param: str, message: str, *, status: int = 400, code: str | None = None) -> NoReturn:
    raise ApiError(status, message, param=param, code=code)


def _items(vectors: np.ndarray, encoding_format: str) -> Iterator[bytes]:
    for index, vector in enumerate(vectors):
        if encoding_format == "base64":
            rendered = '"' + base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii") + '"'
        else:
            rendered = json.dumps(vector.tolist())
        yield f'{{"object": "embedding", "index": {index}, "embedding": {rendered}}}'.encode("ascii")


def _texts(document: dict[str, Any], max_inputs: int) -> tuple[str, ...]:
    if "input" not in document:
        refuse("input", "'input' is missing; allowed: a string, or a list of strings")
    given = document["input"]
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        refuse("input", f"'input' is {_kind(given)}; allowed: a string, or a list of strings")
    if not texts:
        refuse("input", "'input' is an empty list; allowed: 1 or more strings")
    if _are_token_ids(texts):
        refuse(
            "input",
            "'input' holds token ids; allowed: strings. Token ids belong to the tokenizer that made them, which is "
            "not this model's (with LangChain's OpenAIEmbeddings set check_embedding_ctx_length=False)",
        )
    if len(texts) > max_inputs:
        refuse("input", f"'input' holds {len(texts)} inputs; allowed: at most {max_inputs}", code="too_many_inputs")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            refuse("input", f"input {index} is {_kind(text)}; allowed: a string")
        if not text:
            refuse("input", f"input {index} is an empty string; allowed: strings with at least one character")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            refuse("input", f"input {index} holds half a surrogate pair; allowed: valid Unicode")
    return tuple(texts)


def _are_token_ids(values: list[Any]) -> bool:
    first = values[0]
    return _is_number(first) or (isinstance(first, list) and (not first or _is_number(first[0])))


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _choice(document: dict[str, Any], name: str, allowed: tuple[str, ...]) -> str:
    value = document.get(name)
    if value is None:
        return allowed[0]
    if not isinstance(value, str) or value not in allowed:
        refuse(name, f"{name!r} is {_shown(value)}; allowed: {', '.join(allowed)}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _shown(value: Any) -> str:
    if isinstance(value, str | int | float | bool) and (not isinstance(value, float) or math.isfinite(value)):
        return repr(value)[:60]
    return _kind(value)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
