"""Model folders as the Hugging Face hub gives them, made without its libraries."""

import json
import os
from pathlib import Path
from typing import Any

TENSORS = {
    "vit.embeddings.weight": ("F32", [10, 4]),
    "vit.layer.weight": ("BF16", [4, 4]),
    "vit.bn.running_mean": ("F32", [4]),
    "vit.position_ids": ("I64", [1, 10]),
}
NUM_PARAMS = 10 * 4 + 4 * 4
_BYTES = {"F32": 4, "BF16": 2, "I64": 8}
CARD = """---
license: apache-2.0
datasets:
- acme/pets
base_model: acme/vit-large
pipeline_tag: image-classification
tags: [vision, vit]
metrics: [accuracy]
model-index:
- name: vit
  results:
  - task: {type: image-classification}
    dataset: {name: Pets, type: acme/pets, split: test}
    metrics:
    - {type: accuracy, value: 93.5}
    - {type: loss, value: 0.4}
  - task: {type: image-classification}
    dataset: {name: Oxford Flowers, type: flowers, config: default, split: validation}
    metrics: [{type: accuracy, value: 0.75}, {type: f1, value: 0.5}]
---
# A model
"""


def safetensors(tensors: dict[str, tuple[str, list[int]]] = TENSORS, **metadata: str) -> bytes:
    """A file of weights, all zero."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    size = 0
    for name, (dtype, shape) in tensors.items():
        count = _BYTES[dtype]
        for side in shape:
            count *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [size, size + count]}
        size += count
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


def write_model(
    folder: Path,
    card: str | None = CARD,
    *,
    processor: dict[str, Any] | None = {"do_center_crop": True, "crop_size": 24, "size": 32},  # noqa: B006  # read only
    config: dict[str, Any] | None = None,
) -> Path:
    """An image model; without ``processor`` a text encoder."""
    folder.mkdir(parents=True)
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"} if config is None else config))
    (folder / "model.safetensors").write_bytes(safetensors())
    if processor is None:
        (folder / "tokenizer.json").write_text("{}")
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


class Intruder:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.folder,)
