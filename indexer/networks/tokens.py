"""Texts: bytes to text, text to tokens. Knows no torch.

Axes: N texts, L tokens of the longest of them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from indexer.errors import WeightsError
from indexer.signatures import content_kind

TOKENS, MASK = 0, 1
"""Rows of an encoded text: indices of its tokens, and 1 where there is one, 0 where there is padding."""

TRIVIAL_TOKENS = 16
"""Tokens of each text of the trivial task."""


class UnreadableTextError(Exception):
    """A file that holds no text in UTF-8, or nothing but blanks, and which of these it is."""


def decode_text(content: bytes) -> str:
    """The text of a file, without blanks around it; ``UnreadableTextError`` if it is not UTF-8, or blank."""
    kind = content_kind(content)
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as err:
        raise UnreadableTextError(kind or "text that is not in UTF-8") from err
    if not text or "git LFS" in kind:
        raise UnreadableTextError(kind if "git LFS" in kind else "blank text")
    return text


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer of transformers, and how many tokens of a text it reads."""

    backend: Any = field(repr=False)
    max_tokens: int  # most tokens of a text, those that mark its ends included
    hash: str  # blake2b of all that it does, hexadecimal

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of texts.

        Returns:
            ``[N, 2, L]`` int32: ``TOKENS`` and ``MASK``, padding on the right.
        """
        if not texts:
            return np.zeros((0, 2, 0), np.int32)
        encoded = self.backend(
            list(texts),
            truncation=True,
            max_length=self.max_tokens,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return self._padded(encoded["input_ids"])

    def _padded(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        encoded = np.zeros((len(rows), 2, max(map(len, rows))), np.int32)
        encoded[:, TOKENS] = self.backend.pad_token_id or 0  # if there is none, what it stands for is not seen
        for row, tokens in enumerate(rows):
            encoded[row, TOKENS, : len(tokens)] = tokens
            encoded[row, MASK, : len(tokens)] = 1
        return encoded

    def has_tokens(self, encoded: np.ndarray) -> np.ndarray:
        """Which encoded texts hold more than the marks of their ends, ``[N]`` bool; an unknown word is more."""
        marks = set(self.backend.all_special_ids) - {self.backend.unk_token_id}
        unmarked = ~np.isin(encoded[:, TOKENS], list(marks)) & (encoded[:, MASK] == 1)
        return np.asarray(unmarked.any(axis=1))

    def random_texts(self, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Texts of random tokens: of the first half of the vocabulary where the label is 0, else of the second.

        What marks the ends of a text is where it always is.
        """
        special = set(self.backend.all_special_ids)
        plain = np.array([index for index in sorted(self.backend.get_vocab().values()) if index not in special])
        template = np.array(self.backend("a", return_attention_mask=False)["input_ids"])
        place = next((place for place, token in enumerate(template) if token not in special), len(template))
        after = place + 1
        while after < len(template) and template[after] not in special:
            after += 1
        length = min(TRIVIAL_TOKENS, max(1, self.max_tokens - len(template) + 1))
        halves = np.array_split(plain, 2)
        drawn = [generator.choice(halves[label], length) for label in labels]
        return self._padded([[*template[:place], *tokens, *template[after:]] for tokens in drawn])


def tokenizer_hash(backend: Any) -> str:
    """Hash of all that a tokenizer does, the same whatever it was last used for.

    Raises:
        WeightsError: If it cannot say, as those that are no ``PreTrainedTokenizerFast`` cannot.
    """
    if not getattr(backend, "is_fast", False):
        raise WeightsError(
            f"{type(backend).__name__} is a tokenizer of the slow kind; expected one with a tokenizer.json, as "
            "`AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)` writes"
        )
    description = json.loads(backend.backend_tokenizer.to_str())
    does = {
        name: part for name, part in description.items() if name not in {"version", "truncation", "padding"}
    }
    canonical = json.dumps([does, backend.pad_token_id], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def text_lengths(encoded: np.ndarray) -> np.ndarray:
    """Number of tokens ``[N]`` of encoded texts ``[N, 2, L]``."""
    lengths: np.ndarray = encoded[:, MASK].sum(axis=1)
    return lengths
