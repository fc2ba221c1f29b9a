"""How the service is found and how refusals read, mostly without a service."""

import socket
import subprocess
import sys

import pytest

from embed_assets.files import StoreError
from embed_assets.serving.client import LiveEmbedder, ServiceError, find_service
from embed_assets.store import Store
from tests.serving.running_service import ADMIN_TOKEN, Running


def test_it_imports_no_torch() -> None:
    check = "import sys, embed_assets.serving.client; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_service_is_none(store: Store) -> None:
    assert find_service(store) is None


def test_the_environment_overrides(store: Store, live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBED_ASSETS_SERVICE_URL", live.url + "/")
    monkeypatch.setenv("EMBED_ASSETS_ADMIN_TOKEN", ADMIN_TOKEN)
    service = find_service(store)
    assert service is not None
    assert service.url == live.url
    assert service.health()
    assert service.ready()
    assert service.status()["model"] == live.service.engine.current.model
    assert service.models()[0]["live"]
    assert service.reload()["outcome"] == "unchanged"


def test_a_damaged_record_is_an_error(store: Store) -> None:
    from embed_assets.serving.registration import only_service

    with only_service(store):
        store.service.write_text('{"url": "http://127.0.0.1:1"}')
        with pytest.raises(StoreError, match="is no record of a service"):
            find_service(store)


def test_nobody_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = LiveEmbedder(f"http://127.0.0.1:{port}", "t")
    assert not service.health()
    assert not service.ready()
    with pytest.raises(ServiceError, match=rf"http://127\.0\.0\.1:{port} cannot be reached.*embed-assets serve"):
        service.status()


def test_a_wrong_token_is_said(live: Running) -> None:
    with pytest.raises(ServiceError, match=r"refused with 401.*EMBED_ASSETS_ADMIN_TOKEN") as refused:
        LiveEmbedder(live.url, "wrong").reload()
    assert refused.value.status == 401


def test_a_refusal_carries_its_words(live: Running) -> None:
    with pytest.raises(ServiceError, match="input 1 is an empty string") as refused:
        live.client.embed(["a", ""])
    assert refused.value.status == 400


def test_a_swap_under_way_is_waited_for(live: Running) -> None:
    import threading

    ended = threading.Event()
    started = threading.Event()

    def hold() -> None:
        with live.service.engine.swapping("another"):
            started.set()
            ended.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert started.wait(60)
    with pytest.raises(ServiceError, match="a swap to another is under way") as refused:
        live.client.reload(timeout_seconds=0.2)
    assert refused.value.code == "swap_in_progress"
    threading.Timer(0.2, ended.set).start()
    assert live.client.reload()["outcome"] == "unchanged"
    holder.join()
