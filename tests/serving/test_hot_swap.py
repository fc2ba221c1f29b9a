"""Swaps on a running service: no failed request, no mixed vector, and nothing wrong ever gets in."""

import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.resolve import resolve
from embed_assets.files import point_link, read_json
from embed_assets.serving.client import ServiceError
from embed_assets.settings import ModelSettings, ServingSettings, Settings
from embed_assets.store import Store
from tests.serving.running_service import Running, perturbed, promoted, running, write_checkpoint

TEXTS = [f"def handler_{index}(request): return respond(request, {index})" for index in range(24)]


class Clients:
    """Threads that keep asking for different slices of TEXTS and keep every answer."""

    def __init__(self, service: Running, count: int) -> None:
        self.answers: list[tuple[slice, str, np.ndarray]] = []
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        self._service = service
        self._threads = [threading.Thread(target=self._ask, args=(index,)) for index in range(count)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        goal = len(self.answers) + more
        deadline = time.monotonic() + 300
        while len(self.answers) < goal and not self.errors:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def _ask(self, index: int) -> None:
        chosen = slice(index, None, index + 1) if index % 2 else slice(index, index + 1)
        while not self._stop.is_set():
            try:
                vectors, model = self._service.client.embed(TEXTS[chosen], "passage")
            except ServiceError as error:
                self.errors.append(error)
                return
            self.answers.append((chosen, model, vectors))


def expected(path: Path, kind: Literal["query", "passage"] = "passage") -> np.ndarray:  # (texts, dim)
    return load_encoder(path, device="cpu").encode(TEXTS, kind=kind)


def test_swaps_under_load_with_the_real_model(tmp_path: Path) -> None:
    """Every answer is, to rounding, what sentence-transformers computes with the one model that the answer names."""
    from sentence_transformers import SentenceTransformer

    settings = Settings(
        data_dir=tmp_path / "data", model=ModelSettings(name="minilm"), serving=ServingSettings(device="cpu")
    )
    store = Store(settings.data_dir)
    base = resolve("minilm").path
    write_checkpoint(store, "tuned", perturbed(base, tmp_path / "tuned", 1), base_model="minilm")
    oracle = {
        f"minilm@{name}": SentenceTransformer(str(path), device="cpu").encode(TEXTS, normalize_embeddings=True)
        for name, path in (("base", base), ("tuned", store.checkpoint("tuned")))
    }
    assert (oracle["minilm@base"] * oracle["minilm@tuned"]).sum(axis=1).max() < 0.99
    with running(settings) as service, Clients(service, 4) as clients:
        clients.wait_for(4)
        promoted(store, "tuned")
        swap = service.client.reload("tuned")
        clients.wait_for(8)
        service.client.rollback()
        clients.wait_for(4)
    assert (swap["outcome"], swap["model"], swap["drained"]) == ("swapped", "minilm@tuned", True)
    assert not clients.errors
    assert {model for _, model, _ in clients.answers} == set(oracle)
    for chosen, model, vectors in clients.answers:
        assert np.allclose(vectors, oracle[model][chosen], atol=2e-6)


def test_many_swaps_under_load(settings: Settings, store: Store, checkpoints: list[str]) -> None:
    names = ["base", *checkpoints]
    truth = {f"e5-large@{name}": expected(store.checkpoint(name)) for name in checkpoints}
    with running(settings) as service:
        truth[service.service.engine.current.model] = expected(service.service.engine.current.path)
        with Clients(service, 8) as clients:
            for turn in range(12):
                name = names[1 + turn % 3]
                point_link(store.checkpoint_latest, store.checkpoint(name))
                assert service.client.reload(name)["checkpoint_id"] == name
                clients.wait_for(5)
    assert not clients.errors
    for chosen, model, vectors in clients.answers:
        assert np.allclose(vectors, truth[model][chosen], atol=1e-5)
    assert len(Counter(model for _, model, _ in clients.answers)) >= 3


def test_a_pinned_name_gets_the_previous_model(live: Running, checkpoints: list[str]) -> None:
    before = live.service.engine.current
    promoted(live.store, checkpoints[0])
    live.client.reload()
    vectors, model = live.client.embed(TEXTS, "passage", model=before.model)
    assert model == before.model
    assert np.allclose(vectors, expected(before.path), atol=1e-5)
    assert live.client.embed(TEXTS[:1])[1] == f"e5-large@{checkpoints[0]}"


def test_rollback_moves_the_pointer_and_swaps_from_hand(live: Running, checkpoints: list[str]) -> None:
    for name in checkpoints[:2]:
        promoted(live.store, name)
        live.client.reload(name)
    swap = live.client.rollback()
    assert (swap["checkpoint_id"], swap["load_seconds"]) == (checkpoints[0], 0)
    assert live.store.checkpoint_latest.resolve().name == checkpoints[0]
    live.client.rollback()
    assert not live.store.checkpoint_latest.exists()
    assert live.client.status()["live"]["checkpoint_id"] == "base"
    with pytest.raises(ServiceError, match="nothing came before") as refused:
        live.client.rollback()
    assert refused.value.code == "swap_refused"
    assert live.client.embed(TEXTS[:1])[0].shape[0] == 1


def test_what_is_live_is_said_in_live_json(live: Running, checkpoints: list[str]) -> None:
    promoted(live.store, checkpoints[0])
    live.client.reload()
    said = read_json(live.store.live)
    generation = live.service.engine.current
    assert said["checkpoint_id"] == checkpoints[0]
    assert (said["digest"], said["space_id"]) == (generation.digest, generation.space_id)
    assert said["since"]


def refused_reload(live: Running, checkpoint_id: str | None) -> ServiceError:
    """The refusal of a reload; what answered before answers still, with the same vectors."""
    before, model = live.client.embed(TEXTS, "passage")
    with pytest.raises(ServiceError) as refused:
        live.client.reload(checkpoint_id)
    after, still = live.client.embed(TEXTS, "passage")
    assert still == model
    assert np.allclose(after, before, atol=1e-6)
    return refused.value


def test_a_damaged_checkpoint_is_refused(live: Running, checkpoints: list[str]) -> None:
    promoted(live.store, checkpoints[0])
    (live.store.checkpoint(checkpoints[0]) / "config.json").write_text("{}")
    error = refused_reload(live, checkpoints[0])
    assert error.status == 422
    assert "config.json was changed" in str(error)
    assert "stays live" in str(error)
    status = live.client.status()
    assert status["desired"] == checkpoints[0]
    assert "config.json was changed" in status["last_failure"]["error"]
    assert 'embed_assets_reloads_total{outcome="failed"} 1.0' in live.get("/metrics").text


def test_a_model_that_is_not_the_one_evaluated_is_refused(live: Running, tuned_models: list[Path]) -> None:
    write_checkpoint(live.store, "odd", tuned_models[0], golden_noise=0.02)
    promoted(live.store, "odd")
    assert "does not reproduce its golden vectors" in str(refused_reload(live, "odd"))


@pytest.mark.parametrize("name", ["20261102-b", "nothing", "../../etc", "http://elsewhere/model", ""])
def test_only_what_the_pointer_names_is_served(live: Running, checkpoints: list[str], name: str) -> None:
    promoted(live.store, checkpoints[0])
    error = refused_reload(live, name)
    assert (error.status, error.code) == (409, "not_desired")


def test_a_pointer_out_of_the_store_is_refused(live: Running, checkpoints: list[str], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(live.store.checkpoint(checkpoints[0]), outside)
    point_link(live.store.checkpoint_latest, outside)
    assert refused_reload(live, None).status == 422
    assert live.client.status()["desired_problem"]


def test_the_loop_follows_the_pointer_and_gets_over_failures(settings: Settings, checkpoints: list[str]) -> None:
    with running(settings, reconcile=0.05) as service:
        weights = service.store.checkpoint(checkpoints[0]) / "model.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[:-1] + b"?")
        promoted(service.store, checkpoints[0])
        deadline = time.monotonic() + 120
        while service.client.status()["reconcile_failures"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert service.client.ready()
        assert service.client.status()["live"]["checkpoint_id"] == "base"
        weights.write_bytes(content)
        while service.client.status()["live"]["checkpoint_id"] != checkpoints[0]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert service.client.status()["last_failure"] is None
