"""Small data sets of texts, and a tiny text encoder, for tests."""

import csv
import importlib
from pathlib import Path
from typing import Any

WORDS = (
    "the",
    "a",
    "of",
    "good",
    "bad",
    "fine",
    "poor",
    "great",
    "awful",
    "film",
    "book",
    "song",
    "plot",
    "cast",
    "was",
    "is",
    "not",
    "very",
    "so",
    "and",
    "but",
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

Row = tuple[str, str]
"""Text and label."""


def load_transformers() -> Any:
    """The library; torchvision has to come through its door before it."""
    import indexer.networks.torchvision  # noqa: F401

    return importlib.import_module("transformers")


def make_tokenizer() -> Any:
    """A tokenizer of ``WORDS`` that marks the ends of a text as BERT's does."""
    transformers = load_transformers()
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = ("pad", "unk", "cls", "sep", "mask")
    special = {f"{name}_token": token for name, token in zip(names, SPECIAL, strict=True)}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **special)


def save_encoder(folder: Path, *, seed: int = 0, kind: str = "Bert", **options: Any) -> Path:
    """A randomly initialised encoder with its tokenizer in a folder."""
    import torch

    transformers, tokenizer = load_transformers(), make_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
    }
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**sizes | options)
    network = getattr(transformers, f"{kind}Model")(config)
    for parameter in network.parameters():  # as trained ones: not all but zero, as they are initialised
        torch.nn.init.normal_(parameter, std=0.4)
    network.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentences(count: int, seed: int = 0) -> list[str]:
    """Texts of 2 to 12 words."""
    import numpy as np

    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(2, 13))) for _ in range(count)]


def write_reviews(path: Path, count: int = 24, *, seed: int = 0, suffix: str = "") -> Path:
    """A CSV of texts, each of which holds a word of its class: good or bad."""
    words = {"good": ("good", "great", "fine"), "bad": ("bad", "awful", "poor")}
    rows = []
    for place, text in enumerate(sentences(count, seed)):
        label = ("good", "bad")[place % 2]
        rows.append((f"{text} {words[label][place % 3]}{suffix}", label))
    return write_texts(path, rows)


def write_texts(path: Path, rows: list[Row], columns: tuple[str, ...] = ("text", "label")) -> Path:
    """A CSV of rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path
