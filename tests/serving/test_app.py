"""The HTTP face on a real server: OpenAI's format, limits, access, and answers while the model is busy."""

import base64
import threading
import time
from typing import Any

import httpx
import numpy as np
import pytest

from embed_assets.serving.batching import QueueFullError
from embed_assets.settings import Settings
from tests.serving.running_service import ADMIN_TOKEN, TLS, Running, running

TEXTS = ["where do we retry failed webhooks", "def get(self, key): return self.entries.get(key)", "parse"]


def vectors_of(response: httpx.Response) -> np.ndarray:  # (inputs, dim)
    assert response.status_code == 200, response.text
    return np.array([item["embedding"] for item in response.json()["data"]], dtype=np.float32)


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text
    return error


def test_answers_are_what_the_encoder_computes(live: Running) -> None:
    generation = live.service.engine.current
    for kind in ("query", "passage"):
        response = live.post("/v1/embeddings", {"input": TEXTS, "input_type": kind})
        body = response.json()
        assert body["model"] == generation.model
        assert body["usage"]["prompt_tokens"] == sum(map(len, generation.tokenise(TEXTS, kind)))
        assert [item["index"] for item in body["data"]] == [0, 1, 2]
        expected = generation.encoder.encode(TEXTS, kind=kind)
        assert np.allclose(vectors_of(response), expected, atol=1e-5)


def test_the_input_type_is_query_when_not_said(live: Running) -> None:
    unsaid = vectors_of(live.post("/v1/embeddings", {"input": TEXTS[0]}))
    query, passage = (
        vectors_of(live.post("/v1/embeddings", {"input": TEXTS[0], "input_type": kind}))
        for kind in ("query", "passage")
    )
    assert np.allclose(unsaid, query, atol=1e-6)
    assert not np.allclose(query, passage, atol=1e-3)


def test_base64_is_the_same_numbers(live: Running) -> None:
    exact = vectors_of(live.post("/v1/embeddings", {"input": TEXTS}))
    packed = live.post("/v1/embeddings", {"input": TEXTS, "encoding_format": "base64"}).json()["data"]
    decoded = np.stack([np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4") for item in packed])
    assert np.allclose(decoded, exact, atol=1e-6)


def test_dimensions_are_the_full_one_or_refused(live: Running) -> None:
    full = live.service.engine.current.dimension
    assert vectors_of(live.post("/v1/embeddings", {"input": "a", "dimensions": full})).shape == (1, full)
    refused = live.post("/v1/embeddings", {"input": "a", "dimensions": 16})
    assert refused.status_code == 400
    assert (
        f"'dimensions' is 16; allowed for {live.service.engine.current.model}: {full}" in error_of(refused)["message"]
    )


def test_long_inputs_are_refused_or_cut_as_asked_and_never_silently(live: Running) -> None:
    generation = live.service.engine.current
    long = "retry failed webhooks " * 200
    refused = live.post("/v1/embeddings", {"input": ["a", long]})
    assert refused.status_code == 400
    error = error_of(refused)
    tokens = len(generation.tokenise([long], "query")[0])
    assert f"input 1 has {tokens} tokens; allowed: at most {generation.max_tokens}" in error["message"]
    assert error["code"] == "context_length_exceeded"
    cut = live.post("/v1/embeddings", {"input": ["a", long], "truncate": True})
    assert cut.json()["usage"]["truncated_inputs"] == [1]
    assert np.allclose(vectors_of(cut), generation.encoder.encode(["a", long], kind="query"), atol=1e-5)
    assert live.post("/v1/embeddings", {"input": "a", "truncate": True}).json()["usage"]["truncated_inputs"] == []


def test_a_request_has_limits(live: Running) -> None:
    many = live.post("/v1/embeddings", {"input": ["a"] * 65})
    assert many.status_code == 400
    assert "65 inputs; allowed: at most 64" in error_of(many)["message"]
    heavy = live.post("/v1/embeddings", {"input": ["retry failed webhooks " * 30] * 64, "truncate": True})
    assert heavy.status_code == 400
    assert error_of(heavy)["code"] == "too_many_tokens"
    large = live.post("/v1/embeddings", content=b" " * (17 * 1024 * 1024))
    assert large.status_code == 413
    assert error_of(large)["code"] == "too_large"


def test_unknown_models_paths_and_methods(live: Running) -> None:
    unknown = live.post("/v1/embeddings", {"input": "a", "model": "text-embedding-3-small"})
    assert unknown.status_code == 404
    assert error_of(unknown)["code"] == "model_not_found"
    assert live.get("/v1/nothing").status_code == 404
    wrong = live.get("/v1/embeddings")
    assert wrong.status_code == 405
    assert "GET is not allowed" in error_of(wrong)["message"]


def test_models_lists_every_name_a_request_may_give(live: Running) -> None:
    listed = live.get("/v1/models").json()
    assert listed["object"] == "list"
    names = [model["id"] for model in listed["data"]]
    assert names[0] == live.service.engine.current.model
    for name in names:
        assert live.post("/v1/embeddings", {"input": "a", "model": name}).status_code == 200


def test_a_service_without_a_model_is_alive_and_not_ready(settings: Settings) -> None:
    with running(settings, load=False) as service:
        assert service.get("/health").status_code == 200
        assert service.get("/ready").status_code == 503
        refused = service.post("/v1/embeddings", {"input": "a"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert service.get("/v1/models").json()["data"] == []
        service.service.engine.swap_to("base")
        assert service.get("/ready").json()["status"] == "ready"


def test_an_api_key_guards_all_of_v1_and_nothing_else(settings: Settings) -> None:
    with running(settings, api_key="the-key") as service:
        key, admin = {"authorization": "Bearer the-key"}, {"authorization": f"Bearer {ADMIN_TOKEN}"}
        for headers, status in (({}, 401), ({"authorization": "Bearer wrong"}, 401), (key, 200), (admin, 200)):
            assert service.post("/v1/embeddings", {"input": "a"}, headers=headers).status_code == status
            assert service.get("/v1/models", headers=headers).status_code == status
        for path in ("/health", "/ready", "/metrics"):
            assert service.get(path).status_code == 200
        assert service.get("/admin/status", key).status_code == 401


def test_admin_endpoints_need_their_own_token(live: Running) -> None:
    asked = [("GET", "/admin/status"), ("POST", "/admin/reload"), ("POST", "/admin/rollback")]
    for method, path in asked:
        for value in ("", "Bearer", "Bearer wrong", f"Basic {ADMIN_TOKEN}", "Bearer ü"):
            refused = httpx.request(
                method, live.url + path, headers={b"authorization": value.encode("latin-1")}, verify=TLS
            )
            assert refused.status_code == 401
            assert error_of(refused)["code"] == "invalid_api_key"
    assert live.get("/admin/status", {"authorization": f"bearer {ADMIN_TOKEN}"}).status_code == 200


def test_health_answers_while_the_model_is_busy(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    generation = live.service.engine.current
    encode = type(generation).encode_rows
    busy, answered = threading.Event(), threading.Event()
    waited: list[bool] = []

    def slow(self: Any, rows: Any) -> np.ndarray:
        busy.set()
        waited.append(answered.wait(50))
        return encode(self, rows)

    monkeypatch.setattr(type(generation), "encode_rows", slow)
    large = threading.Thread(target=lambda: live.post("/v1/embeddings", {"input": ["retry failed webhooks"] * 64}))
    large.start()
    assert busy.wait(60)
    for path in ("/health", "/ready", "/metrics"):
        assert live.get(path).status_code == 200
    assert waited == [], "they were answered while the model was at work"
    answered.set()
    large.join()
    assert all(waited)


def test_a_full_queue_is_503_with_a_time(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise QueueFullError(900, 1000, 7)

    monkeypatch.setattr(live.service.batcher, "submit", full)
    refused = live.post("/v1/embeddings", {"input": "a"})
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "7"
    assert error_of(refused)["code"] == "overloaded"


def test_a_failing_model_shows_no_trace(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> np.ndarray:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(type(live.service.engine.current), "encode_rows", fail)
    refused = live.post("/v1/embeddings", {"input": "a"})
    assert refused.status_code == 500
    assert "secret" not in refused.text
    assert error_of(refused)["type"] == "server_error"


def test_a_client_that_leaves_frees_its_place(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    generation = live.service.engine.current
    gate = threading.Event()
    encode = type(generation).encode_rows
    monkeypatch.setattr(type(generation), "encode_rows", lambda self, rows: gate.wait(120) and encode(self, rows))
    blocker = threading.Thread(target=lambda: live.post("/v1/embeddings", {"input": "a"}))
    blocker.start()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(live.url + "/v1/embeddings", json={"input": ["b"] * 60}, timeout=2, verify=TLS)
    deadline = time.monotonic() + 60
    while live.service.engine.status()["live"]["in_flight"] > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    gate.set()
    blocker.join()
    deadline = time.monotonic() + 60
    while live.service.batcher.queued_tokens and time.monotonic() < deadline:
        time.sleep(0.01)
    assert live.service.engine.status()["live"]["in_flight"] == 0
    assert "embed_assets_cancelled_requests_total 1.0" in live.get("/metrics").text


def test_metrics_count_what_happened(live: Running) -> None:
    live.post("/v1/embeddings", {"input": TEXTS})
    live.post("/v1/embeddings", {"input": ""})
    text = live.get("/metrics").text
    model = live.service.engine.current.model
    assert f'embed_assets_inputs_total{{model="{model}"}} 3.0' in text
    assert 'embed_assets_requests_total{path="/v1/embeddings",status="400"} 1.0' in text
    assert "embed_assets_batch_rows_count" in text
    assert "embed_assets_queued_tokens 0.0" in text
    digest, space = live.service.engine.current.digest, live.service.engine.current.space_id
    assert f'embed_assets_generation{{digest="{digest}",model="{model}",space_id="{space}"}} 1.0' in text
