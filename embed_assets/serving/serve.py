"""The live embedder's process, from its socket to its clean end."""

import errno
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

import uvicorn

from embed_assets.checkpoints.live import BASE
from embed_assets.files import write_json
from embed_assets.serving.app import Service, build_app
from embed_assets.serving.batching import Batcher
from embed_assets.serving.client import API_KEY_VARIABLE, TOKEN_VARIABLE
from embed_assets.serving.engine import Engine
from embed_assets.serving.generation import Generation, load_base, load_checkpoint
from embed_assets.serving.metrics import Metrics
from embed_assets.serving.reconcile import RECONCILE_SECONDS, Reconciler
from embed_assets.serving.registration import ServiceRecord, only_service, remove_record, write_record
from embed_assets.settings import Settings
from embed_assets.store import Store

QUEUED_REQUESTS = 4
"""The queue holds so many requests of the largest size allowed."""
LOADING_END_SECONDS = 10.0
"""How long a stop waits for a first model that is still loading."""

logger = logging.getLogger(__name__)


class ServeError(RuntimeError):
    """The service cannot start."""


@dataclass(eq=False)
class _Run:
    """One run of the service: what its threads tell each other."""

    record: ServiceRecord
    server: uvicorn.Server | None = None
    failure: Exception | None = None


def serve(
    settings: Settings,
    *,
    host: str | None = None,
    port: int | None = None,
    model: str | None = None,
    reconcile_seconds: float = RECONCILE_SECONDS,
    ready_callback: Callable[[ServiceRecord, Generation], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then finishes the requests under way and returns.

    Args:
        host: address to listen on; the settings' when not given.
        port: 0 picks a free one; the settings' when not given.
        model: a base model to start with (alias, path or hub name), whatever checkpoint-latest says; the service
            then follows checkpoint-latest only when it is asked to reload.
        reconcile_seconds: between two looks at checkpoint-latest; 0 means that only a reload over HTTP swaps.
        ready_callback: called once, in a thread, when the first model answers.

    Raises:
        ServeError: the address is taken or not this machine's.
        AlreadyRunningError: another service runs on this data directory.
        CheckpointCorruptError, GenerationError, ModelError: what should be served may not be.
    """
    store = Store(settings.data_dir)
    wanted_host = host if host is not None else settings.serving.host
    with only_service(store), _bound(wanted_host, port if port is not None else settings.serving.port) as listener:
        token = os.environ.get(TOKEN_VARIABLE) or secrets.token_urlsafe(32)
        api_key = os.environ.get(API_KEY_VARIABLE) or None
        _warn_if_open(listener, api_key)
        run = _Run(
            ServiceRecord(
                url=_url(listener),
                pid=os.getpid(),
                token=token,
                started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
        service = assemble(settings, store, token, api_key, 0.0 if model is not None else reconcile_seconds)
        try:
            _listen(
                run,
                service,
                listener,
                settings.serving.drain_seconds,
                lambda: _first(run, service, settings, model, ready_callback),
            )
        finally:
            remove_record(store)
        if run.failure is not None:
            raise run.failure


def assemble(
    settings: Settings, store: Store, admin_token: str, api_key: str | None, reconcile_seconds: float
) -> Service:
    """Engine, queue, reconciler and metrics of one service; nothing is loaded yet, and nobody listens."""
    limits = settings.serving
    metrics = Metrics()

    def load(checkpoint_id: str) -> Generation:
        return load_base(settings) if checkpoint_id == BASE else load_checkpoint(store, settings, checkpoint_id)

    engine = Engine(load, drain_seconds=limits.drain_seconds, on_swap=lambda generation: _say_live(store, generation))
    reconciler = Reconciler(
        engine, store, seconds=reconcile_seconds, observe=lambda outcome: metrics.swaps.labels(outcome).inc()
    )
    batcher = Batcher(
        max_queued_tokens=QUEUED_REQUESTS * limits.max_request_tokens,
        prepare_thread=lambda: _set_threads(limits.threads),
        observe_batch=metrics.observe_batch,
    )
    return Service(
        engine=engine,
        batcher=batcher,
        reconciler=reconciler,
        metrics=metrics,
        admin_token=admin_token,
        api_key=api_key,
        max_inputs=limits.max_inputs,
        max_request_tokens=limits.max_request_tokens,
        background=(reconciler.follow,),
    )


def _listen(
    run: _Run, service: Service, listener: socket.socket, drain_seconds: float, load_first: Callable[[], None]
) -> None:
    """Listens at once, so that /health and /ready answer while the first model loads in a thread."""
    config = uvicorn.Config(
        build_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
    )
    run.server = uvicorn.Server(config)
    loading = threading.Thread(target=load_first, name="first-load", daemon=True)
    with _own_signals(run.server):
        loading.start()
        run.server.run(sockets=[listener])
        loading.join(timeout=LOADING_END_SECONDS)


def _first(
    run: _Run,
    service: Service,
    settings: Settings,
    model: str | None,
    ready_callback: Callable[[ServiceRecord, Generation], None] | None,
) -> None:
    """Loads the first generation, then makes the service known; a failure ends the service with it."""
    try:
        if model is not None:
            service.engine.start(lambda: load_base(settings, model))
        else:
            service.engine.swap_to(service.reconciler.desired())
        assert run.server is not None
        if run.server.should_exit:
            return
        write_record(Store(settings.data_dir), run.record)
        logger.info("serving %s at %s", service.engine.current.model, run.record.url)
        if ready_callback is not None:
            ready_callback(run.record, service.engine.current)
    except Exception as error:  # noqa: BLE001 - raised by `serve`, in the main thread
        run.failure = error
        assert run.server is not None
        run.server.should_exit = True


def _say_live(store: Store, generation: Generation) -> None:
    """Writes live.json: the service's own word on what it serves. A full disk must not undo a swap."""
    said = {**generation.describe(), "since": datetime.now(UTC).isoformat(timespec="seconds"), "pid": os.getpid()}
    try:
        write_json(store.live, said)
    except OSError as error:
        logger.error("%s could not be written: %s; %s is live all the same", store.live, error, generation.model)


def _set_threads(threads: int | None) -> None:
    """The number of CPU threads counts for the thread that sets it."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens at `host` and `port`; bound before any model is loaded, so that a mistake shows at once.

    Raises:
        ServeError: the port is taken, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ServeError(f"serving.host is {host!r}, which is no address of this machine: {error.strerror}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            said = (
                f"port {port} of {host} is in use by another program; choose another with --port, or 0 for a free one"
            )
        else:
            said = f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}"
        raise ServeError(said) from error
    try:
        yield listener
    finally:
        listener.close()


def _url(listener: socket.socket) -> str:
    """Where this machine reaches the service; for a listener on all addresses that is loopback."""
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "::1" if listener.family == socket.AF_INET6 else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _warn_if_open(listener: socket.socket, api_key: str | None) -> None:
    address = listener.getsockname()[0]
    if not ip_address(address).is_loopback and api_key is None:
        logger.warning(
            "listening on %s without an API key: whoever reaches this machine may embed; set %s, or serve on 127.0.0.1",
            address,
            API_KEY_VARIABLE,
        )


@contextmanager
def _own_signals(server: uvicorn.Server) -> Iterator[None]:
    """Uvicorn raises a signal again after its graceful end: without this it would end the process before the cleaning.

    Outside uvicorn's own watch, the signal just ends the server.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
