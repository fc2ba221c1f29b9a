"""A data directory as the stages before leave it. Its models are files that have a digest and cannot be loaded."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from embed_assets.encoder.digest import model_digest
from embed_assets.evaluation.benchmark import write_benchmark
from embed_assets.evaluation.vectors import Floats, Kind
from embed_assets.files import point_link, write_json
from embed_assets.records import CORPUS_SCHEMA, QUERY_SCHEMA, Benchmark, RecallReport, SliceReport, query_digest
from embed_assets.store import Store

FIRST, SECOND = "20261123-020000-aaaaaaaa", "20261124-020000-bbbbbbbb"


def make_benchmark(name: str, count: int, *, source: str = "docstring", cutoff: int = 0) -> Benchmark:
    """`count` functions, each asked for by one query of its own word."""
    corpus = pl.DataFrame(
        [
            {
                "document_id": f"{name}-document-{number}",
                "text": f"{name}.py function_{number}\ndef function_{number}(): return word{number}",
                "parts": [],
                "repository": "shop" if number % 2 else "bank",
                "language": "python" if number % 3 else "rust",
                "path": f"{name}.py",
                "name": f"function_{number}",
            }
            for number in range(count)
        ],
        schema=dict(CORPUS_SCHEMA),
    )
    queries = pl.DataFrame(
        [
            {
                "query_id": f"{name}-query-{number:04}",
                "text": f"what function_{number} does with word{number}",
                "masked_text": f"what does with word{number}",
                "source": source,
                "repository": "shop" if number % 2 else "bank",
                "language": "python" if number % 3 else "rust",
                "group_id": f"file-{number // 2}",
                "written_at": 0,
                "relevant": [f"{name}-document-{number}"],
            }
            for number in range(count)
        ],
        schema=dict(QUERY_SCHEMA),
    )
    digest = Benchmark.digest_for(corpus, queries, cutoff)
    return Benchmark(name=name, digest=digest, cutoff=cutoff, corpus=corpus, queries=queries)


def set_benchmarks(store: Store, benchmark: Benchmark, guard: Benchmark | None = None) -> None:
    point_link(store.current_benchmark, write_benchmark(benchmark, store.benchmarks))
    if guard is not None:
        point_link(store.guard_benchmark, write_benchmark(guard, store.benchmarks))


def write_model(folder: Path, weights: str) -> Path:
    """Files with a digest; nothing that could be loaded."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_text(weights, encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}", encoding="utf-8")
    return folder


def write_candidate(store: Store, candidate_id: str, *, weights: str, learnt: Sequence[str] = ()) -> Path:
    """A trained candidate, not yet evaluated; `candidates/latest` points to it."""
    folder = store.candidate(candidate_id)
    write_model(folder / "model", weights)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_text(f"adapter of {weights}", encoding="utf-8")
    write_json(
        folder / "training.json",
        {
            "candidate_id": candidate_id,
            "pairs_digest": "f" * 40,
            "cutoff": 0,
            "query_digests": [query_digest(text) for text in learnt],
            "base_model": "minilm",
            "base_name": "minilm",
            "base_revision": "",
            "max_tokens": 256,
        },
    )
    point_link(store.latest_candidate, folder)
    return folder


def write_report(store: Store, candidate_id: str, report: RecallReport) -> RecallReport:
    """Report and golden vectors, as an evaluation leaves them."""
    folder = store.candidate(candidate_id)
    save_file({"vectors": np.eye(2, dtype=np.float32)}, folder / "golden.safetensors", metadata={"texts": '["a", "b"]'})
    write_json(folder / "report.json", report.to_json())
    return report


def fitting(store: Store, candidate_id: str, slices: Sequence[SliceReport], **changes: object) -> RecallReport:
    """A report on the candidate and the benchmarks that are in the store."""
    from tests.evaluation.made_reports import make_report

    values: dict[str, object] = {
        "candidate_id": candidate_id,
        "candidate_digest": model_digest(store.candidate(candidate_id) / "model"),
        "benchmark_digest": store.current_benchmark.resolve().name,
        "guard_digest": store.guard_benchmark.resolve().name,
    }
    return make_report(*slices, **{**values, **changes})


class FakeEncoder:
    """Bags of hashed words. `noise` spoils the vectors; the same words and noise give the same vectors."""

    def __init__(self, noise: float = 0.0, dimension: int = 256) -> None:
        self.noise = noise
        self.dimension = dimension
        self.encoded: list[str] = []

    @property
    def space_id(self) -> str:
        return f"fake-{self.noise}"

    def encode(self, texts: Sequence[str], *, kind: Kind, progress: object = None) -> Floats:
        self.encoded += texts
        rows = np.stack([self._vector(kind, text) for text in texts])
        if callable(progress):
            progress(len(texts))
        return rows

    def encode_documents(
        self, texts: Sequence[str], parts: Sequence[Sequence[str]], *, progress: object = None
    ) -> Floats:
        """As if nothing were too short for parts: what has some is the mean of them."""
        self.encoded += texts
        stand_ins = [list(divided) or [text] for text, divided in zip(texts, parts, strict=True)]
        means = [np.sum([self._vector("passage", one) for one in some], axis=0) for some in stand_ins]
        if callable(progress):
            progress(len(texts))
        return np.stack([np.asarray(mean / np.linalg.norm(mean), dtype=np.float32) for mean in means])

    def _vector(self, kind: str, text: str) -> Floats:
        vector = np.zeros(self.dimension)
        for word in text.replace("(", " ").replace(")", " ").split():
            vector[int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dimension] += 1
        seed = int(hashlib.sha256(f"{kind} {text}".encode()).hexdigest(), 16) % 2**32
        vector += self.noise * np.random.default_rng(seed).standard_normal(self.dimension)
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)
