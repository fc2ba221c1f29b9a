"""What the wire format takes and refuses, without a server."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from embed_assets.serving.protocol import ApiError, parse_embeddings, parse_reload, render_embeddings, shortened


def parsed(document: Any) -> Any:
    return parse_embeddings(json.dumps(document).encode(), max_inputs=3)


def test_defaults() -> None:
    request = parsed({"input": "one"})
    assert request.texts == ("one",)
    assert (request.model, request.encoding_format, request.dimensions) == (None, "float", None)
    assert (request.input_type, request.truncate) == ("query", False)


def test_all_fields() -> None:
    request = parsed(
        {
            "input": ["a", "b"], "model": "minilm", "encoding_format": "base64", "dimensions": 64, "user": "me",
            "input_type": "passage", "truncate": True,
        }
    )  # fmt: skip
    assert request.texts == ("a", "b")
    assert (request.model, request.encoding_format, request.dimensions) == ("minilm", "base64", 64)
    assert (request.input_type, request.truncate) == ("passage", True)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "'input' is missing"),
        ({"input": None}, "'input' is null; allowed: a string, or a list of strings"),
        ({"input": []}, "empty list"),
        ({"input": ["a", ""]}, "input 1 is an empty string"),
        ({"input": ["a", 2]}, "input 1 is a number; allowed: a string"),
        ({"input": ["a", None]}, "input 1 is null"),
        ({"input": [1, 2]}, "token ids"),
        ({"input": [[1, 2], [3]]}, "token ids"),
        ({"input": {"a": 1}}, "'input' is an object"),
        ({"input": ["a"] * 4}, "4 inputs; allowed: at most 3"),
        ({"input": "\ud800"}, "input 0 holds half a surrogate pair"),
        ({"input": "a", "model": 3}, "'model' is a number"),
        ({"input": "a", "dimensions": 0}, "'dimensions' is 0; allowed: a whole number from 1 on"),
        ({"input": "a", "dimensions": True}, "'dimensions' is True"),
        ({"input": "a", "dimensions": 3.5}, "'dimensions' is 3.5"),
        ({"input": "a", "encoding_format": "int8"}, "allowed: float, base64"),
        ({"input": "a", "input_type": "document"}, "allowed: query, passage"),
        ({"input": "a", "truncate": "yes"}, "'truncate' is 'yes'; allowed: true, false"),
        ({"input": "a", "trunc": True}, "unknown field 'trunc'; allowed: input, model"),
        ([1], "a list; allowed: a JSON object"),
    ],
)
def test_refusals_name_what_was_found_and_what_is_allowed(document: Any, said: str) -> None:
    with pytest.raises(ApiError) as refused:
        parsed(document)
    assert refused.value.status == 400
    assert said in refused.value.message
    assert refused.value.to_json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"input": "a", "dimensions": NaN}', b"[" * 100_000, b'{"input": ' + b"9" * 5000 + b"}"],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parse_embeddings(body, max_inputs=3)
    assert refused.value.status == 400


def test_reload_takes_an_id_and_nothing_else() -> None:
    assert parse_reload(b"") is None
    assert parse_reload(b'{"checkpoint_id": "x"}') == "x"
    with pytest.raises(ApiError, match="never a path or URL"):
        parse_reload(b'{"url": "http://elsewhere"}')
    with pytest.raises(ApiError, match="a string"):
        parse_reload(b'{"checkpoint_id": ["x"]}')


def test_both_formats_carry_the_same_numbers() -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    bodies = {
        name: json.loads(
            render_embeddings(vectors, encoding_format=name, model="m@1", tokens=9, truncated=(), cuts_reported=False)
        )
        for name in ("float", "base64")
    }
    assert bodies["float"] | {"data": 0} == bodies["base64"] | {"data": 0}
    assert bodies["float"]["object"] == "list"
    assert bodies["float"]["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    for index in range(3):
        exact = np.array(bodies["float"]["data"][index]["embedding"], dtype=np.float32)
        decoded = np.frombuffer(base64.b64decode(bodies["base64"]["data"][index]["embedding"]), dtype="<f4")
        assert (exact == vectors[index]).all()
        assert (decoded == vectors[index]).all()
        assert bodies["float"]["data"][index]["index"] == index


def test_shortened_vectors_are_unit_again() -> None:
    vectors = np.array([[3.0, 4.0, 12.0]], dtype=np.float32) / 13
    assert shortened(vectors, 3) is vectors
    assert np.allclose(shortened(vectors, 2), [[0.6, 0.8]])
