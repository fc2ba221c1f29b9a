"""The real MiniLM through evaluation, gate, promotion and SentenceTransformer; the live model is a spoilt copy of it.

Nothing is trained here: repairing a spoilt model is a true gain, spoiling it further a true loss.
"""

import ast
import inspect
import json
import shutil
import statistics
import textwrap
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from embed_assets.checkpoints.live import BASE, live_model, rollback
from embed_assets.checkpoints.promote import PromotionRefusedError, promote
from embed_assets.checkpoints.verdict import judge
from embed_assets.encoder.resolve import resolve
from embed_assets.evaluation.evaluate import evaluate_candidate
from embed_assets.evaluation.job import plan_evaluation
from embed_assets.files import read_json, write_json
from embed_assets.records import CORPUS_SCHEMA, QUERY_SCHEMA, Benchmark
from embed_assets.settings import GateSettings, Settings, TrainingSettings
from embed_assets.store import Store
from tests.evaluation.made_store import FIRST, SECOND, set_benchmarks, write_candidate


def functions_of(module: ModuleType) -> list[tuple[str, str, str]]:
    """(name, first line of the docstring, code without it) of a module's documented functions."""
    found = []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.FunctionDef) and (doc := ast.get_docstring(node)) and len(node.body) > 1:
            bare = ast.FunctionDef(**{**vars(node), "body": node.body[1:], "decorator_list": []})
            found.append((node.name, doc.split("\n")[0], ast.unparse(bare)[:240]))
    return found


def benchmark_of(name: str, modules: list[ModuleType], count: int) -> Benchmark:
    rows = [(module.__name__, *found) for module in modules for found in functions_of(module)][:count]
    corpus = pl.DataFrame(
        [
            {
                "document_id": f"{name}-{number}", "text": f"{path}.py {function}\n{code}", "parts": [],
                "repository": name, "language": "python", "path": f"{path}.py", "name": function,
            }
            for number, (path, function, _, code) in enumerate(rows)
        ],
        schema=dict(CORPUS_SCHEMA),
    )  # fmt: skip
    queries = pl.DataFrame(
        [
            {
                "query_id": f"{name}-query-{number}", "text": doc, "masked_text": doc, "source": "docstring",
                "repository": name, "language": "python", "group_id": f"{number}", "written_at": 0,
                "relevant": [f"{name}-{number}"],
            }
            for number, (_, _, doc, _) in enumerate(rows)
        ],
        schema=dict(QUERY_SCHEMA),
    )  # fmt: skip
    digest = Benchmark.digest_for(corpus, queries, 0)
    return Benchmark(name=name, digest=digest, cutoff=0, corpus=corpus, queries=queries)


def spoilt(source: Path, target: Path, amount: float) -> Path:
    """A copy of a model with noise on the weights of its layers."""
    shutil.copytree(source, target)
    random = np.random.default_rng(0)
    weights = load_file(target / "model.safetensors")
    for name, values in weights.items():
        if values.ndim == 2 and "layer" in name:
            noise = random.standard_normal(values.shape) * values.std() * amount
            weights[name] = (values + noise).astype(values.dtype)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def candidate(store: Store, name: str, model: Path, base: Path) -> None:
    folder = write_candidate(store, name, weights="replaced below")
    shutil.rmtree(folder / "model")
    shutil.copytree(model, folder / "model")
    training = read_json(folder / "training.json")
    write_json(folder / "training.json", {**training, "base_name": str(base), "base_model": ""})


@pytest.fixture
def settings(store: Store) -> Settings:
    import argparse
    import configparser
    import fractions
    import random
    import zipfile

    set_benchmarks(
        store,
        benchmark_of("team", [shutil, textwrap, statistics, argparse, configparser], 60),
        benchmark_of("library", [random, fractions, zipfile], 30),
    )
    return Settings(
        data_dir=store.root,
        training=TrainingSettings(device="cpu", threads=1),
        gate=GateSettings(minimum_queries=30),
    )


def test_a_better_model_is_promoted_and_loads_everywhere_and_a_worse_one_is_not(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    minilm = resolve("minilm").path
    base = spoilt(minilm, tmp_path / "spoilt", 0.5)
    candidate(store, FIRST, minilm, base)
    evaluate_candidate(plan_evaluation(settings, store))
    verdict = judge(store, settings.gate, FIRST)
    assert verdict.promote, verdict.reasons
    assert promote(store, None, settings.gate).checkpoint_id == FIRST

    with safe_open(store.checkpoint_latest / "golden.safetensors", framework="numpy") as file:
        golden, texts = file.get_tensor("vectors"), json.loads(file.metadata()["texts"])
    model = SentenceTransformer(str(store.checkpoint_latest), device="cpu")
    np.testing.assert_allclose(model.encode(texts, normalize_embeddings=True), golden, atol=1e-5)

    candidate(store, SECOND, spoilt(minilm, tmp_path / "worse", 0.4), base)
    report = evaluate_candidate(plan_evaluation(settings, store))
    assert report.live_id == FIRST
    with pytest.raises(PromotionRefusedError, match="gain -"):
        promote(store, None, settings.gate)
    live = live_model(store)
    assert live is not None
    assert live.checkpoint_id == FIRST
    assert plan_evaluation(settings, store).attempt == 1  # its own refusal does not count against it
    assert rollback(store).checkpoint_id == BASE
