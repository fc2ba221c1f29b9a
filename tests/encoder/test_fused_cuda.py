"""On a GPU: the fused path against float32 on padded rows, its kernels against the same operations in torch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu.workload import SHAPES, columns, save_checkpoint, shrunk, text_of
from embed_assets.encoder.encoder import Encoder
from embed_assets.encoder.fused import fused_embed
from embed_assets.encoder.load import load_encoder
from embed_assets.encoder.packed import packed_embed
from embed_assets.encoder.padded import padded_embed
from embed_assets.encoder.paths import choose_path, embed_tokens
from embed_assets.training.adapter import adapter_parameters, add_adapter
from embed_assets.training.recipe import Recipe
from tests.training.made_pairs import tiny_recipe

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ALIASES = sorted(SHAPES)


def recipe(alias: str) -> Recipe:
    return tiny_recipe(alias, lora_rank=16)


def encoder_of(alias: str, folder: Path, precision: str, *, trained: bool = True) -> Encoder:
    """A small model of the architecture; its adapter does something, the same in every precision."""
    path = save_checkpoint(shrunk(SHAPES[alias], 128), folder / alias, "cpu")
    encoder = load_encoder(path, device="cuda", precision=precision)
    if trained:
        add_adapter(encoder, recipe(alias))
        generator = torch.Generator().manual_seed(3)
        for parameter in adapter_parameters(encoder.model).values():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return encoder


def rows_of(encoder: Encoder, count: int, seed: int = 1) -> list[list[int]]:
    ids = columns(count, 4096, seed=seed)
    return list(encoder.tokenise([text_of(row) for column in ids for row in column]))


def gradients(encoder: Encoder, vectors: torch.Tensor) -> torch.Tensor:
    encoder.model.zero_grad(set_to_none=True)
    half = len(vectors) // 2
    scores = vectors[:half] @ vectors[half:].T / 0.05
    loss = torch.nn.functional.cross_entropy(scores, torch.arange(half, device=scores.device))
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.cat(
        [p.grad.flatten().float() for p in adapter_parameters(encoder.model).values() if p.grad is not None]
    )


def cosine(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(left.double(), right.double(), dim=0))


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("path", ["packed", "fused"])
def test_vectors_and_gradients_are_those_of_float32(alias: str, path: str, tmp_path: Path) -> None:
    reference = encoder_of(alias, tmp_path, "float32")
    rows = rows_of(reference, 24)
    vectors = padded_embed(reference, rows)
    expected = gradients(reference, vectors)
    encoder = encoder_of(alias, tmp_path, "bfloat16")
    assert choose_path(encoder) == "fused"
    found = embed_tokens(encoder, rows, path)
    assert float((found * vectors).sum(1).detach().min()) >= 0.999
    assert cosine(gradients(encoder, found), expected) >= 0.997


@pytest.mark.parametrize("alias", ["qodo", "minilm"])
def test_recomputing_changes_no_bit(alias: str, tmp_path: Path) -> None:
    encoder = encoder_of(alias, tmp_path, "bfloat16")
    rows = rows_of(encoder, 16)
    kept = gradients(encoder, fused_embed(encoder, rows, recomputed=0))
    again = gradients(encoder, fused_embed(encoder, rows, recomputed=2))
    none_left = gradients(encoder, fused_embed(encoder, rows, activation_budget=0))
    assert torch.equal(kept, again)
    assert torch.equal(kept, none_left)


@pytest.mark.parametrize("alias", ["qodo", "minilm"])
def test_graphs_give_what_the_same_rows_give_without(
    alias: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of several shapes and numbers of documents, one after the other, while other forwards run in between."""
    batches = [(16, 1), (16, 2), (13, 3), (40, 4), (16, 1), (9, 5), (40, 4), (13, 3)]
    results: dict[bool, list[torch.Tensor]] = {}
    for graphs in (True, False):
        if not graphs:
            monkeypatch.setattr("embed_assets.encoder.fused_graphs.LAUNCH_BOUND", 0.0)
        encoder = encoder_of(alias, tmp_path, "bfloat16")
        results[graphs] = []
        for count, seed in batches:
            vectors = fused_embed(encoder, rows_of(encoder, count, seed))
            with torch.no_grad():
                fused_embed(encoder, rows_of(encoder, 5))
            results[graphs] += [vectors.detach(), gradients(encoder, vectors)]
        if graphs:
            from embed_assets.encoder import fused

            cache = fused._stack(encoder.model)[1]
            assert len(cache._captured) >= 2
    for with_graph, without in zip(results[True], results[False], strict=True):
        assert cosine(with_graph.flatten(), without.flatten()) > 0.9999


def test_two_forwards_before_their_backwards(tmp_path: Path) -> None:
    encoder = encoder_of("qodo", tmp_path, "bfloat16")
    first, second = rows_of(encoder, 16, 1), rows_of(encoder, 16, 2)
    apart = []
    for rows in (first, second, first, second):
        apart.append(gradients(encoder, fused_embed(encoder, rows)))
    encoder.model.zero_grad(set_to_none=True)
    joint = [fused_embed(encoder, rows) for rows in (first, second)]
    losses = [
        torch.nn.functional.cross_entropy(v[:16] @ v[16:].T / 0.05, torch.arange(16, device="cuda")) for v in joint
    ]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    found = torch.cat([p.grad.flatten() for p in adapter_parameters(encoder.model).values() if p.grad is not None])
    assert cosine(found, apart[2] + apart[3]) > 0.9999


@pytest.mark.parametrize("alias", ALIASES)
def test_encoding_gives_the_vectors_of_the_cpu(alias: str, tmp_path: Path) -> None:
    encoder = encoder_of(alias, tmp_path, "bfloat16", trained=False)
    on_cpu = load_encoder(encoder.path, device="cpu")
    texts = [text_of(row) for row in columns(3000, 4096, seed=9, tiny=True)[0]]
    counted: list[int] = []
    found = encoder.encode(texts, progress=counted.append)
    assert sum(counted) == 3000
    assert (found[:200] * on_cpu.encode(texts[:200])).sum(1).min() >= 0.999
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-3


def test_float32_on_a_gpu_stays_float32(tmp_path: Path) -> None:
    encoder = encoder_of("qodo", tmp_path, "float32", trained=False)
    assert choose_path(encoder) == "padded"
    assert choose_path(encoder, "fused") == "fused"


@pytest.mark.parametrize("kind", ["swiglu", "gelu"])
def test_activation_kernels(kind: str) -> None:
    from embed_assets.encoder import fused_kernels, fused_math

    torch.manual_seed(0)
    tokens, width, rank, parts = 512, 384, 16, 2 if kind == "swiglu" else 1
    before = torch.randn(tokens, parts * width, device="cuda", dtype=torch.bfloat16)
    a = torch.randn(rank, width, device="cuda", dtype=torch.bfloat16) * 0.1
    hidden, low = fused_kernels.activate(before, kind, width, a)  # type: ignore[arg-type]
    expected, expected_low = fused_math.activate(before.double(), kind, width, a.double())  # type: ignore[arg-type]
    assert relative(hidden, expected) < 6e-3
    assert relative(low, expected_low) < 6e-3

    grad_hidden = torch.randn(tokens, width, device="cuda", dtype=torch.bfloat16)
    grad_low = torch.randn(tokens, rank, device="cuda", dtype=torch.bfloat16)
    low_before = torch.randn(tokens, parts * rank, device="cuda", dtype=torch.bfloat16)
    results = []
    for ops, wide in ((fused_kernels, torch.bfloat16), (fused_math, torch.float64)):
        inner = before.clone().to(wide)
        sum_type = torch.float32 if wide == torch.bfloat16 else wide
        grad_a = torch.full((rank, width), torch.nan, device="cuda", dtype=sum_type)
        grad_b = torch.full((parts * width, rank), torch.nan, device="cuda", dtype=sum_type)
        ops.activate_backward_(
            inner, grad_hidden.to(wide), kind, width, grad_low.to(wide), low_before.to(wide), grad_a, grad_b
        )
        results.append((inner, grad_a, grad_b))
    for found, reference in zip(*results, strict=True):
        assert relative(found, reference) < 8e-3


def test_the_gated_kernel() -> None:
    """Where it runs, and it does on an H100, it gives what the plain products give."""
    from embed_assets.encoder import fused_gated, fused_kernels

    torch.manual_seed(0)
    x = torch.randn(4112, 1536, device="cuda", dtype=torch.bfloat16)
    weight = (torch.randn(2 * 896, 1536 + 32, device="cuda", dtype=torch.bfloat16) * 0.03)[:, :1536]
    asked: list[int] = []

    def plain() -> torch.Tensor:
        asked.append(1)
        before = x @ weight.T
        return fused_kernels.activate(before, "swiglu", 896, before.new_empty(0, 896))[0]

    found = [fused_gated.gated_product(x, weight, 896, plain) for _ in range(2)]
    hopper = torch.cuda.get_device_capability() == (9, 0)
    assert (found[0] is not None, found[1] is not None, len(asked)) == (
        (True, True, 1) if hopper else (False, False, 0)
    )
    gate, up = (x.double() @ weight.T.double()).chunk(2, 1)
    expected = torch.nn.functional.silu(gate) * up
    if found[1] is not None:
        assert relative(found[1], expected) < 6e-3
    assert fused_gated.gated_product(x[:32], weight, 896, plain) is None
    assert relative(fused_kernels.swiglu_of(x[:32], weight.T, 896), expected[:32]) < 8e-3


def test_a_gated_kernel_that_is_wrong_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from embed_assets.encoder import fused_gated

    monkeypatch.setattr(fused_gated, "_right", {})
    x = torch.randn(4096, 64, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(256, 64, device="cuda", dtype=torch.bfloat16)
    with caplog.at_level("WARNING"):
        assert fused_gated.gated_product(x, weight, 128, lambda: torch.ones(4096, 128, device="cuda")) is None
    if torch.cuda.get_device_capability() == (9, 0):
        assert "wrong" in caplog.text


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    difference = torch.linalg.vector_norm(found.double() - expected.double())
    return float(difference / torch.linalg.vector_norm(expected.double()))


def test_packed_and_fused_agree_on_documents_of_one_token(tmp_path: Path) -> None:
    encoder = encoder_of("qodo", tmp_path, "bfloat16", trained=False)
    rows = [[7], [9, 2], [11] * 300, [5], *[[13, 2]] * 40]
    with torch.no_grad():
        assert float((packed_embed(encoder, rows) * fused_embed(encoder, rows)).sum(1).min()) > 0.999


@pytest.mark.parametrize(
    ("causal", "heads", "key_value", "dim"), [(True, 12, 2, 128), (False, 16, 16, 64), (False, 12, 12, 32)]
)
@pytest.mark.parametrize("longest", [512, 4096])
@pytest.mark.parametrize("enough_programs", [0, 1 << 20])
@pytest.mark.parametrize("rotary", [False, True])
def test_attention_kernels(
    causal: bool, heads: int, key_value: int, dim: int, longest: int, enough_programs: int, rotary: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Documents of every length around a tile's edges; long ones go through flash attention.

    The keys' gradient in one part and in as many as there are query heads, with rotary positions turned back or none.
    """
    from embed_assets.encoder import fused_attention_kernels, fused_kernels, fused_math
    from embed_assets.encoder.fused_attention import Rotation
    from embed_assets.encoder.packing import pack

    monkeypatch.setattr(fused_attention_kernels, "ENOUGH_PROGRAMS", enough_programs)

    lengths = [1, 63, 64, 65, 3, 127, 128, 129, 24, 24, 24, 200, 256, longest - 200]
    packed = pack([[1] * length for length in lengths], "cuda")
    documents = fused_kernels.documents(packed)
    assert (documents.spans is None) == (longest == 4096)
    torch.manual_seed(0)
    columns = (heads + 2 * key_value) * dim
    qkv = torch.randn(len(packed.token_ids), columns, device="cuda", dtype=torch.bfloat16)
    sizes = [heads * dim, key_value * dim, key_value * dim]
    q, k, v = (part.view(len(part), -1, dim) for part in torch.split(qkv, sizes, 1))
    grad = torch.randn(len(qkv), heads * dim, device="cuda", dtype=torch.bfloat16)
    angles = torch.rand(len(qkv), dim // 2, device="cuda") * 6
    turn = Rotation(cos=angles.cos(), sin=angles.sin(), minus_sin=-angles.sin()) if rotary else None
    attended = torch.full((len(qkv), heads * dim + 16), torch.nan, device="cuda", dtype=torch.bfloat16)
    attended = attended[:, : heads * dim].view(len(qkv), heads, dim)
    turned = qkv.clone()  # the kernels rotate in place
    q, k, v = (part.view(len(part), -1, dim) for part in torch.split(turned, sizes, 1))
    fused_kernels.attend(q, k, v, torch.empty_like(q), documents, causal, turn, False)
    if documents.spans is not None:
        assert torch.equal(q.flatten(1), qkv[:, : heads * dim])  # nothing is written that nobody reads again
    turned.copy_(qkv)
    kept = fused_kernels.attend(q, k, v, attended, documents, causal, turn, True)
    found = fused_kernels.attend_backward(grad, q, k, v, attended, kept, documents, causal, turn, 48)
    again = fused_kernels.attend_backward(grad, q, k, v, attended, kept, documents, causal, turn, 48)
    assert found.shape == (len(qkv), columns + 48)
    edges = fused_math.documents(packed)[: len(lengths) + 1]
    real = edges[-1]
    if turn is not None:
        turn = Rotation(cos=turn.cos[:real], sin=turn.sin[:real], minus_sin=turn.minus_sin[:real])
    q, k, v = (part[:real].float().view(real, -1, dim) for part in torch.split(qkv, sizes, 1))
    expected = torch.empty_like(q)
    fused_math.attend(q, k, v, expected, edges, causal, turn, True)
    if turn is not None:
        assert relative(turned[:real, : heads * dim], q.flatten(1)) < 4e-3
    gradient = fused_math.attend_backward(grad[:real].float(), q, k, v, expected, None, edges, causal, turn, 0)
    assert relative(attended[:real], expected) < 6e-3
    assert relative(found[:real, :columns], gradient) < 8e-3
    if longest == 512:
        assert torch.equal(found[:, :columns], again[:, :columns])
