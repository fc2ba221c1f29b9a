"""The process: how it is found, how it ends, and what keeps it from starting."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embed_assets.checkpoints.manifest import CheckpointCorruptError
from embed_assets.serving.client import find_service
from embed_assets.serving.generation import Generation
from embed_assets.serving.registration import (
    AlreadyRunningError,
    ServiceRecord,
    only_service,
    read_record,
    write_record,
)
from embed_assets.serving.serve import ServeError, serve
from embed_assets.settings import Settings
from embed_assets.store import Store
from tests.serving.running_service import promoted

PROGRAM = """
import sys
from embed_assets.serving.serve import serve
from embed_assets.settings_loading import load_settings
serve(load_settings(overrides=dict(pair.split("=", 1) for pair in sys.argv[1:])))
"""


@contextmanager
def serving(settings: Settings, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`serve` in a process of its own, ready; killed at the end if it still runs."""
    arguments = [
        f"data_dir={settings.data_dir}",
        f"model.name={settings.model.name}",
        "serving.port=0",
        "serving.threads=1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, **environment}, cwd=settings.data_dir, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while read_record(Store(settings.data_dir)) is None:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def _data_directory(store: Store) -> None:
    store.root.mkdir()


def test_a_life_from_start_to_sigterm(settings: Settings, store: Store, checkpoints: list[str]) -> None:
    promoted(store, checkpoints[0])
    with serving(settings, EMBED_ASSETS_ADMIN_TOKEN="from-the-environment") as process:
        record = json.loads(store.service.read_text())
        assert record["pid"] == process.pid
        assert record["token"] == "from-the-environment"
        assert stat.S_IMODE(store.service.stat().st_mode) == 0o600
        assert json.loads(store.live.read_text())["checkpoint_id"] == checkpoints[0]
        service = find_service(store)
        assert service is not None
        assert service.embed(["a"])[1] == f"e5-large@{checkpoints[0]}"
        with pytest.raises(AlreadyRunningError, match=f"at {record['url']}, process {process.pid}"):
            serve(settings)
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(len(service.embed(["retry failed webhooks"] * 60)[0])))
        asking.start()
        while asking.is_alive() and service.status()["live"]["in_flight"] == 0:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        asking.join()
        assert answers == [60], "a request under way is finished"
        assert not store.service.exists()
        assert not store.live.exists()
        assert find_service(store) is None


def test_the_record_of_a_killed_service_is_stale(settings: Settings, store: Store) -> None:
    with serving(settings) as process:
        process.kill()
        process.wait()
        assert store.service.exists()
        assert find_service(store) is None
    with only_service(store):
        pass  # and another may start


def test_a_stale_record_with_a_living_process_id_is_still_stale(store: Store) -> None:
    write_record(store, ServiceRecord(url="http://127.0.0.1:1", pid=os.getpid(), token="t", started_at=""))
    assert find_service(store) is None
    with only_service(store):
        assert find_service(store) is not None


def test_a_port_in_use_is_said(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"port {port} of 127.0.0.1 is in use.*--port"):
            serve(settings, port=port)


def test_an_address_of_another_machine_is_said(settings: Settings) -> None:
    with pytest.raises(ServeError, match=r"192\.0\.2\.1"):
        serve(settings, host="192.0.2.1")


def test_a_damaged_checkpoint_is_not_replaced_by_the_base_model(
    settings: Settings, store: Store, checkpoints: list[str]
) -> None:
    promoted(store, checkpoints[0])
    (store.checkpoint(checkpoints[0]) / "report.json").write_text("{}")
    with pytest.raises(CheckpointCorruptError, match=r"report\.json was changed"):
        serve(settings)
    assert not store.service.exists()


def test_open_to_all_without_a_key_is_warned_of(
    settings: Settings, store: Store, checkpoints: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    promoted(store, checkpoints[0])
    (store.checkpoint(checkpoints[0]) / "report.json").write_text("{}")  # ends the service once it has warned
    with pytest.raises(CheckpointCorruptError):
        serve(settings, host="0.0.0.0")
    assert "without an API key" in caplog.text


def test_an_explicit_model_is_served_whatever_the_pointer_says(
    settings: Settings, store: Store, checkpoints: list[str], base_model: Path
) -> None:
    promoted(store, checkpoints[0])

    def stop(record: ServiceRecord, generation: Generation) -> None:
        raise KeyError(generation.model)

    with pytest.raises(KeyError, match="e5-large@base"):
        serve(settings, model=str(base_model), ready_callback=stop)
