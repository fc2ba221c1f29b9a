"""The service against a plain sentence-transformers server, on the same texts, model and cores, both in one run.

    python benchmarks/serving.py [--repeats 3] [--threads N] [--output benchmarks/reports/DATE-serving-cpu.md]

The peer is what one writes in an afternoon: Starlette, one lock around `SentenceTransformer.encode` with its defaults,
in a thread. It speaks the same API and answers in base64 as ours does, so that only the serving differs. Texts are
functions of installed packages; queries are their names in words. Three loads:

- `queries`: 16 clients, one short query each at a time: what a search box makes.
- `corpus`: 2 clients, 128 functions a request: what indexing makes.
- `both`: one client sends 512 functions a request while 4 clients send one query at a time; what counts is how long
  the queries wait.
"""

import argparse
import ast
import importlib.util
import math
import os
import platform
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import httpx

PACKAGES = ("networkx", "polars")
FUNCTIONS = 1024
SEED = 7
MODEL = "minilm"
QUERY_CLIENTS = 16
WARM_UP = 8
BOTH_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """One load on one server."""

    texts_per_second: float
    median_ms: float
    p95_ms: float
    p99_ms: float
    errors: int


def corpus() -> tuple[list[str], list[str]]:
    """Functions of at most 256 tokens or so, and as many short queries."""
    functions = []
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        assert found is not None and found.submodule_search_locations
        for file in sorted(Path(found.submodule_search_locations[0]).rglob("*.py")):
            source = file.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    code = ast.get_source_segment(source, node) or ""
                    if 80 <= len(code) <= 4000:
                        functions.append((node.name, code))
    chosen = random.Random(SEED).sample(functions, FUNCTIONS)
    return [code for _, code in chosen], [f"how to {re.sub('_+', ' ', name)} in a graph or frame" for name, _ in chosen]


@contextmanager
def ours(threads: int) -> Iterator[str]:
    """`serve` with its defaults."""
    program = (
        "import sys\n"
        "from embed_assets.serving.serve import serve\n"
        "from embed_assets.settings_loading import load_settings\n"
        "settings = load_settings(overrides={'data_dir': sys.argv[1], 'serving.threads': int(sys.argv[2])})\n"
        "serve(settings, port=int(sys.argv[3]))\n"
    )
    with tempfile.TemporaryDirectory() as folder, _process(program, threads, folder) as url:
        yield url


@contextmanager
def peer(threads: int) -> Iterator[str]:
    """A plain server around SentenceTransformer.encode."""
    program = """
import asyncio, base64, json, sys, threading
import torch, uvicorn
from sentence_transformers import SentenceTransformer
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from embed_assets.encoder.resolve import resolve

torch.set_num_threads(int(sys.argv[2]))
model = SentenceTransformer(str(resolve("minilm").path), device="cpu")
lock = threading.Lock()

def answer(texts):
    with lock:
        vectors = model.encode(texts, show_progress_bar=False)
    data = [{"index": i, "embedding": base64.b64encode(v.tobytes()).decode()} for i, v in enumerate(vectors)]
    return JSONResponse({"data": data})

async def embeddings(request):
    texts = (await request.json())["input"]
    return await asyncio.to_thread(answer, texts)

async def ready(request):
    return JSONResponse({})

app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"]), Route("/ready", ready)])
uvicorn.run(app, port=int(sys.argv[3]), log_level="warning")
"""
    with _process(program, threads, "-") as url:
        yield url


@contextmanager
def _process(program: str, threads: int, folder: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
    process = subprocess.Popen([sys.executable, "-c", program, folder, str(threads), str(port)], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start (exit code {process.poll()})")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url + "/ready", timeout=5).is_success
    except httpx.HTTPError:
        return False


class Client:
    """One connection; what each request took, and how many texts it held."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=300)
        self.seconds: list[float] = []
        self.texts = 0
        self.errors = 0

    def ask(self, texts: list[str]) -> None:
        started = time.perf_counter()
        body = {"input": texts, "encoding_format": "base64", "truncate": True}
        response = self._http.post("/v1/embeddings", json=body)
        if response.is_success and len(response.json()["data"]) == len(texts):
            self.seconds.append(time.perf_counter() - started)
            self.texts += len(texts)
        else:
            self.errors += 1

    def close(self) -> None:
        self._http.close()


def queries(url: str, functions: list[str], asked: list[str]) -> Result:
    return _load(url, [[[text] for text in asked[index::QUERY_CLIENTS][:24]] for index in range(QUERY_CLIENTS)])


def indexing(url: str, functions: list[str], asked: list[str]) -> Result:
    requests = [functions[start : start + 128] for start in range(0, 512, 128)]
    return _load(url, [requests[0::2], requests[1::2]])


def both(url: str, functions: list[str], asked: list[str]) -> Result:
    """Latency of the queries alone, while functions are embedded throughout."""
    stop, bulk = threading.Event(), Client(url)

    def keep_busy() -> None:
        while not stop.is_set():
            bulk.ask(functions[:512])

    background = threading.Thread(target=keep_busy)
    background.start()
    time.sleep(1)
    try:
        return _load(url, [[[text] for text in asked[index::4]] for index in range(4)], seconds=BOTH_SECONDS)
    finally:
        stop.set()
        background.join()
        bulk.close()


def _load(url: str, requests: list[list[list[str]]], *, seconds: float = math.inf) -> Result:
    """Each list of requests is one client's, sent one after the other, none later than `seconds` after the start."""
    clients = [Client(url) for _ in requests]
    started = time.perf_counter()

    def run(client: Client, own: list[list[str]]) -> None:
        for texts in own:
            if time.perf_counter() - started < seconds:
                client.ask(texts)

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(run, clients, requests))
    elapsed = time.perf_counter() - started
    for client in clients:
        client.close()
    taken = sorted(value * 1000 for client in clients for value in client.seconds)
    return Result(
        texts_per_second=sum(client.texts for client in clients) / elapsed,
        median_ms=statistics.median(taken),
        p95_ms=taken[int(0.95 * (len(taken) - 1))],
        p99_ms=taken[int(0.99 * (len(taken) - 1))],
        errors=sum(client.errors for client in clients),
    )


LOADS: dict[str, Callable[[str, list[str], list[str]], Result]] = {
    "queries": queries,
    "corpus": indexing,
    "both": both,
}
SERVERS = {"embed_assets": ours, "plain sentence-transformers": peer}


def measure(threads: int, repeats: int) -> dict[str, dict[str, list[Result]]]:
    """Load -> server -> one result a repeat. Servers take turns, so that a busy minute hits both."""
    functions, asked = corpus()
    results: dict[str, dict[str, list[Result]]] = {load: {server: [] for server in SERVERS} for load in LOADS}
    for turn in range(repeats):
        for server, start in SERVERS.items():
            with start(threads) as url:
                _load(url, [[functions[:WARM_UP], asked[:WARM_UP]]])
                for load, run in LOADS.items():
                    result = run(url, functions, asked)
                    results[load][server].append(result)
                    print(f"{turn + 1}/{repeats} {server:28} {load:8} {result}", flush=True)
    return results


def report(results: dict[str, dict[str, list[Result]]], threads: int, repeats: int) -> str:
    """Markdown: medians over the repeats."""
    packages = ("embed-assets", "torch", "sentence-transformers", "transformers", "starlette", "uvicorn")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    lines = [
        "# The service against a plain sentence-transformers server",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{threads} threads a server, Python {platform.python_version()}; {versions}. Load average at the end: {load}.",
        f"Medians of {repeats} repeats, servers taking turns; {FUNCTIONS} functions of {', '.join(PACKAGES)}, "
        f"model {MODEL}; `python benchmarks/serving.py`.",
        "",
        "| load | server | texts/s | median ms | p95 ms | p99 ms | errors |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, servers in results.items():
        for server, runs in servers.items():
            columns = (
                statistics.median(run.texts_per_second for run in runs),
                statistics.median(run.median_ms for run in runs),
                statistics.median(run.p95_ms for run in runs),
                statistics.median(run.p99_ms for run in runs),
            )
            shown = " | ".join(f"{value:,.1f}" for value in columns)
            lines.append(f"| {name} | {server} | {shown} | {sum(run.errors for run in runs)} |")
    lines += ["", *(_ratio(name, servers) for name, servers in results.items())]
    return "\n".join(lines) + "\n"


def _ratio(name: str, servers: dict[str, list[Result]]) -> str:
    mine, theirs = (servers[server] for server in SERVERS)
    faster = statistics.median(a.texts_per_second / b.texts_per_second for a, b in zip(mine, theirs, strict=True))
    sooner = statistics.median(b.p95_ms / a.p95_ms for a, b in zip(mine, theirs, strict=True))
    return f"- {name}: {faster:.2f} times the texts per second, p95 {sooner:.2f} times shorter."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output", type=Path, help="Where the report goes; printed in any case.")
    arguments = parser.parse_args()
    text = report(measure(arguments.threads, arguments.repeats), arguments.threads, arguments.repeats)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
