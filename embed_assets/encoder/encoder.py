"""A loaded model: texts to unit vectors, the same for every stage.

The class holds the model, its tokenizer and what both need to be used right. It is stateless between calls, so
that several threads may encode at once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from embed_assets import models
from embed_assets.encoder import digest
from embed_assets.encoder.tokens import Affixes, TokenRows, token_rows
from embed_assets.encoder.workers import in_workers

if TYPE_CHECKING:
    import torch

Kind = Literal["passage", "query"]
CPU_BATCH_TOKENS = 1536
"""On a CPU small batches stay in its caches: measured best between 1,000 and 2,000 tokens (docs/training.md)."""
DEVICE_BATCH_TOKENS = 32_768


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """A model ready to embed. Build one with `encoder.load.load_encoder`."""

    path: Path
    """Folder the model was loaded from."""
    model: "torch.nn.Module" = field(repr=False)
    """The transformer, without any pooling head; a LoRA adapter is injected in place."""
    tokenizer: Any = field(repr=False)
    affixes: Affixes = field(repr=False)
    pooling: models.Pooling
    query_prompt: str
    passage_prompt: str
    max_tokens: int
    """Longest input, prompt and special tokens included; what is longer is cut."""
    dimension: int
    causal: bool
    spec: models.BaseModel | None = None

    @property
    def device(self) -> "torch.device":
        return next(self.model.parameters()).device

    @property
    def precision(self) -> str:
        """Data type of the computation, such as `float32`."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @cached_property
    def space_id(self) -> str:
        """Which vector space the vectors belong to: of the folder as loaded, not of an adapter in training."""
        model = digest.model_digest(self.path)
        return digest.space_id(model, dimension=self.dimension, max_tokens=self.max_tokens, precision=self.precision)

    def tokenise(self, texts: Sequence[str], kind: Kind = "passage") -> TokenRows:
        """Token ids of each text, prompt and special tokens included; `.truncated` counts the texts that were cut."""
        prompt = self.query_prompt if kind == "query" else self.passage_prompt
        return token_rows(self.tokenizer, self.affixes, [prompt + text for text in texts], self.max_tokens)

    def encode(
        self,
        texts: Sequence[str],
        *,
        kind: Kind = "passage",
        batch_tokens: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:  # (texts, dim) float32, unit rows
        """Vectors of `texts`, in their order.

        Args:
            kind: which prompt stands in front.
            batch_tokens: tokens of one forward pass, padding included; the device's best when not given.
            progress: called with the number of texts finished since the last call.
        """
        if self.device.type == "cuda":
            from embed_assets.encoder.device_encode import tokenised_ahead

            return self._encode_on_device(tokenised_ahead(self, texts, kind), len(texts), batch_tokens, progress)
        return self.encode_rows(self.tokenise(texts, kind), batch_tokens=batch_tokens, progress=progress)

    def encode_documents(
        self,
        texts: Sequence[str],
        parts: Sequence[Sequence[str]],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:  # (texts, dim) float32, unit rows
        """Vectors of passages, one each, also of those that are too long for the model.

        A text that would be cut and has parts gets the normalised mean of its parts' vectors: it is found by all that
        they hold, and has one place among the others as before (docs/experiments.md). The rest is what `encode` makes.

        Args:
            parts: (texts,) what stands for each text, each a passage of its own; empty for what is short.
        """
        rows = self.tokenise(texts)
        divided = [index for index, row in enumerate(rows) if parts[index] and len(row) >= self.max_tokens]
        whole = sorted(set(range(len(texts))) - set(divided))
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        vectors[whole] = self.encode_rows([rows[index] for index in whole], progress=progress)
        if divided:
            counts = [len(parts[index]) for index in divided]
            of_parts = self.encode_rows(self.tokenise([part for index in divided for part in parts[index]]))
            sums = np.add.reduceat(of_parts, np.cumsum([0, *counts[:-1]]), axis=0)  # (divided, dim)
            vectors[divided] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
            if progress is not None:
                progress(len(divided))
        return vectors

    def encode_rows(
        self,
        rows: Sequence[Sequence[int]],
        *,
        batch_tokens: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:  # (rows, dim) float32, unit rows
        """Vectors of texts that are tokenised already."""
        from embed_assets.encoder.paths import choose_path

        if self.device.type == "cuda":
            return self._encode_on_device([rows], len(rows), batch_tokens, progress)
        path = choose_path(self, "auto")
        on_cpu = self.device.type == "cpu"
        budget = batch_tokens or (CPU_BATCH_TOKENS if on_cpu else DEVICE_BATCH_TOKENS)
        vectors = np.empty((len(rows), self.dimension), dtype=np.float32)
        was_training = self.model.training
        self.model.eval()
        try:
            for indices, batch in self._embedded(rows, budget, path):
                vectors[indices] = batch
                if progress is not None:
                    progress(len(indices))
        finally:
            self.model.train(was_training)
        return vectors

    def _encode_on_device(
        self,
        chunks: Iterable[Sequence[Sequence[int]]],
        count: int,
        batch_tokens: int | None,
        progress: Callable[[int], None] | None,
    ) -> np.ndarray:  # (count, dim)
        from embed_assets.encoder.device_encode import encode_ahead
        from embed_assets.encoder.paths import choose_path

        vectors = np.empty((count, self.dimension), dtype=np.float32)

        def store(numbers: list[int], arrived: np.ndarray) -> None:
            vectors[numbers] = arrived
            if progress is not None:
                progress(len(numbers))

        was_training = self.model.training
        self.model.eval()
        try:
            encode_ahead(self, chunks, choose_path(self, "auto"), batch_tokens or DEVICE_BATCH_TOKENS, store)
        finally:
            self.model.train(was_training)
        return vectors

    def _embedded(
        self, rows: Sequence[Sequence[int]], budget: int, path: str
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Batches of row numbers and their vectors, as they are finished."""
        import torch

        from embed_assets.encoder.padded import length_batches
        from embed_assets.encoder.paths import embed_tokens

        lengths = [len(row) for row in rows]
        if path == "flat":
            from embed_assets.encoder.flat_encode import encoding_stack, flat_batches

            stack, batches = encoding_stack(self), flat_batches(lengths, budget)
            given = ([rows[index] for index in indices] for indices in batches)
            embedded = in_workers(lambda some: stack.embed(some, self.pooling).numpy(), list(given))
            yield from zip(batches, embedded, strict=True)
            return
        for indices in length_batches(lengths, budget):
            with torch.inference_mode():
                batch = embed_tokens(self, [rows[index] for index in indices], path)
                yield indices, batch.float().cpu().numpy()
