"""Small checkpoints and a real server for the tests of serving: uvicorn in a thread, on a free port."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import torch
import uvicorn
from safetensors.numpy import save_file
from safetensors.torch import load_file
from safetensors.torch import save_file as save_tensors

from embed_assets.checkpoints.manifest import write_manifest
from embed_assets.encoder.digest import model_digest
from embed_assets.encoder.load import load_encoder
from embed_assets.files import new_directory, point_link
from embed_assets.serving.app import Service, build_app
from embed_assets.serving.client import LiveEmbedder
from embed_assets.serving.serve import assemble
from embed_assets.settings import Settings
from embed_assets.store import Store

TLS = httpx.create_ssl_context()
ADMIN_TOKEN = "admin-token-of-the-tests"
GOLDEN_TEXTS = ["def retry_webhook(url): return post(url)", "where do we retry failed webhooks", "class Cache: pass"]


def perturbed(source: Path, target: Path, seed: int) -> Path:
    """A copy of a model folder with every weight moved a little: another model, the same shape."""
    shutil.copytree(source, target)
    generator = torch.Generator().manual_seed(seed)
    weights = load_file(target / "model.safetensors")
    moved = {
        name: tensor + 0.2 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point() and tensor.dim() > 1
        else tensor
        for name, tensor in weights.items()
    }
    save_tensors(moved, target / "model.safetensors", metadata={"format": "pt"})
    return target


def write_checkpoint(
    store: Store, checkpoint_id: str, model: Path, *, golden_noise: float = 0.0, base_model: str = "e5-large"
) -> Path:
    """A whole checkpoint of the model folder `model`; noise makes its golden vectors those of another model."""
    with new_directory(store.checkpoint(checkpoint_id)) as folder:
        shutil.copytree(model, folder, dirs_exist_ok=True)
        write_golden(folder, golden_noise)
        (folder / "report.json").write_text(json.dumps({"base_model": base_model}))
        write_manifest(folder, checkpoint_id=checkpoint_id, model_digest=model_digest(folder), report_digest="none")
    return store.checkpoint(checkpoint_id)


def write_golden(folder: Path, noise: float = 0.0) -> None:
    vectors = load_encoder(folder, device="cpu").encode(GOLDEN_TEXTS, kind="passage")
    vectors = vectors + noise * np.random.default_rng(0).normal(size=vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    metadata = {"texts": json.dumps(GOLDEN_TEXTS), "kinds": json.dumps(["passage"] * len(GOLDEN_TEXTS))}
    save_file({"vectors": vectors}, folder / "golden.safetensors", metadata=metadata)


def promoted(store: Store, checkpoint_id: str) -> None:
    """Points checkpoint-latest at a checkpoint and says so in the history, as a promotion does."""
    from embed_assets.checkpoints.live import Checkpoint, current_id, record

    before = current_id(store)
    path = store.checkpoint(checkpoint_id)
    point_link(store.checkpoint_latest, path)
    made = Checkpoint(checkpoint_id=checkpoint_id, path=path, digest=model_digest(path), replaced=before)
    record(store, "promotion", made, reason="test")


@dataclass(frozen=True)
class Running:
    """A service that answers."""

    url: str
    service: Service
    store: Store

    @property
    def client(self) -> LiveEmbedder:
        return LiveEmbedder(self.url, ADMIN_TOKEN)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=60, verify=TLS)

    def post(
        self,
        path: str,
        document: object = None,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        return httpx.post(self.url + path, json=document, content=content, headers=headers, timeout=60, verify=TLS)


@contextmanager
def running(
    settings: Settings, *, api_key: str | None = None, load: bool = True, reconcile: float = 0
) -> Iterator[Running]:
    """The service of `settings`, put together as `serve` does, on a free port of loopback."""
    store = Store(settings.data_dir)
    service = assemble(settings, store, ADMIN_TOKEN, api_key, reconcile)
    if load:
        service.engine.swap_to(service.reconciler.desired())
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        build_app(service), log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
    thread.start()
    try:
        deadline = time.monotonic() + 120
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", service, store)
    finally:
        server.should_exit = True
        thread.join(timeout=120)
        listener.close()
        assert not thread.is_alive()
