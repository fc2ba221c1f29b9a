"""Text to token ids: special tokens included, cut to the longest input with the closing token kept.

Truncation is done here and not by the tokenizer, for two reasons: the closing token must stay last (last-token
pooling reads it), and how many texts were cut must be known and said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embed_assets.encoder.layout import ModelError

PROBE = "a"


class TokenRows(list[list[int]]):
    """Token ids of each text, in order, and how many texts had to be cut."""

    def __init__(self, rows: Sequence[list[int]], truncated: int) -> None:
        super().__init__(rows)
        self.truncated = truncated


@dataclass(frozen=True, slots=True)
class Affixes:
    """What the tokenizer puts around every text."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    appended: tuple[int, ...]
    """Part of the suffix that the tokenizer leaves out and that is added here."""


def find_affixes(tokenizer: Any, *, end_token: bool) -> Affixes:
    """Asks the tokenizer what it puts around a text; with `end_token` the end-of-sequence token is made the last.

    Raises:
        ModelError: an end token is needed and the tokenizer knows none.
    """
    bare = tokenizer.backend_tokenizer.encode(PROBE, add_special_tokens=False).ids
    full = tokenizer.backend_tokenizer.encode(PROBE, add_special_tokens=True).ids
    start = next(index for index in range(len(full)) if full[index : index + len(bare)] == bare)
    prefix, suffix = tuple(full[:start]), tuple(full[start + len(bare) :])
    if not end_token:
        return Affixes(prefix, suffix, ())
    end = tokenizer.eos_token_id
    if end is None:
        raise ModelError(
            "the model pools its last token, but its tokenizer names no eos_token; name one in tokenizer_config.json"
        )
    appended = () if suffix and suffix[-1] == end else (int(end),)
    return Affixes(prefix, (*suffix, *appended), appended)


def token_rows(tokenizer: Any, affixes: Affixes, texts: Sequence[str], max_tokens: int) -> TokenRows:
    """Token ids of each text, at most `max_tokens` long; a text that is longer loses its end, not the closing token."""
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=True)
    rows, truncated = [], 0
    keep = max_tokens - len(affixes.suffix)
    for encoding in encodings:
        row = [*encoding.ids, *affixes.appended]
        if len(row) > max_tokens:
            row = [*row[:keep], *affixes.suffix]
            truncated += 1
        rows.append(row)
    return TokenRows(rows, truncated)
