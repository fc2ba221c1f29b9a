"""Encoding on a GPU: the device never waits for the host. Texts are tokenised, and vectors fetched, while it computes.

It knows neither paths nor models: rows of token ids come in, in chunks as they are tokenised.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from embed_assets.encoder.paths import embed_tokens, row_batches
from embed_assets.encoder.tokens import TokenRows
from embed_assets.encoder.transfer import Arrival

if TYPE_CHECKING:
    from embed_assets.encoder.encoder import Encoder, Kind

FIRST_CHUNK, CHUNK = 256, 2048
"""Texts that are tokenised at a time; few at first, so that the device begins soon, then twice as many each time."""
Store = Callable[[list[int], np.ndarray], None]


def tokenised_ahead(encoder: "Encoder", texts: Sequence[str], kind: "Kind") -> Iterator[TokenRows]:
    """Token rows of the texts chunk by chunk, the next chunk tokenised in a thread."""
    starts, size = [0], FIRST_CHUNK
    while starts[-1] + size < len(texts):
        starts.append(starts[-1] + size)
        size = min(2 * size, CHUNK)
    ends = [*starts[1:], len(texts)]
    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as ahead:
        chunks = [
            ahead.submit(encoder.tokenise, texts[start:end], kind) for start, end in zip(starts, ends, strict=True)
        ]
        for chunk in chunks:
            yield chunk.result()


def encode_ahead(
    encoder: "Encoder", chunks: Iterable[Sequence[Sequence[int]]], path: str, batch_tokens: int, store: Store
) -> None:
    """Embeds the rows of all chunks, which are numbered through; `store` receives numbers and vectors as they arrive.

    What a chunk leaves over for a batch of its own goes with the next one.
    """
    import torch

    under_way: deque[tuple[list[int], Arrival]] = deque()

    def arrive(most: int) -> None:
        while len(under_way) > most:
            numbers, arrival = under_way.popleft()
            store(numbers, arrival.wait().numpy())

    def embed(part: list[tuple[int, Sequence[int]]]) -> None:
        vectors = embed_tokens(encoder, [row for _, row in part], path)
        under_way.append(([number for number, _ in part], Arrival(vectors.float())))
        arrive(1)

    with torch.inference_mode():
        left: list[tuple[int, Sequence[int]]] = []
        seen = 0
        for chunk in chunks:
            rows = left + list(enumerate(chunk, seen))
            seen += len(chunk)
            *full, last = row_batches(path, [len(row) for _, row in rows], batch_tokens) or [[]]
            for batch in full:
                embed([rows[index] for index in batch])
            left = [rows[index] for index in last]
        if left:
            embed(left)
        arrive(0)
