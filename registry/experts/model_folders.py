"""Folders of models as the Hugging Face hub gives them: where they are, and what their files say.

No weights are loaded: sizes are those in the head of a file, which ``safetensors`` checks against its length.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from registry.errors import InvalidRecordError
from registry.experts.model_cards import CARD
from registry.experts.plain_files import read_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SHARDS = "model.safetensors.index.json"
MAX_DEPTH = 2
"""Folders are looked for as deep as ORG/NAME."""

MAX_JSON_BYTES = 2**24

_CACHED = re.compile(r"models--([\w.-]+?)(?:--([\w.-]+))?", re.ASCII)  # a folder of the hub's own cache
_REVISION = re.compile(r"[0-9a-f]{7,64}")
_SHARD = re.compile(r"[\w.-]{1,200}\.safetensors", re.ASCII)
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model")
_FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
_WRONG = (OSError, ValueError, TypeError, KeyError, RecursionError)  # of files that anybody may have made
_BUFFERS = (".running_mean", ".running_var")


@dataclass(frozen=True)
class FolderFacts:
    """What the files of a model folder say.

    Attributes:
        num_params: Numbers of floating point in the weights, without running means and variances.
        input_size: Side of the square images that it takes in pixels; ``None`` of texts, or if not known.
        pooling: How features are made of a text encoder's states, ``mean`` or ``cls``; empty of an image model.
    """

    num_params: int
    input_size: int | None
    pooling: str


def find_folders(root: Path) -> list[tuple[str, Path]]:
    """Names and places of the models in a folder, in order of name.

    The folder itself is one, named as it is, if it holds a model; else those below it are, named by the way
    there with dots, as the hub's ORG/NAME is ORG.NAME. Links between folders are not followed.

    Raises:
        InvalidRecordError: If the folder cannot be read, or holds no model.
    """
    try:
        folders = [(root.resolve().name, root)] if _holds_model(root) else sorted(_below(root, (), MAX_DEPTH))
    except OSError as err:
        raise InvalidRecordError(f"{root}: the folder cannot be read: {err.strerror or err}") from err
    if not folders:
        raise InvalidRecordError(
            f"{root}: there is no model; expected {CARD}, {CONFIG} and {WEIGHTS}, in it or in folders below"
        )
    return folders


def _below(folder: Path, parts: tuple[str, ...], depth: int) -> Iterator[tuple[str, Path]]:
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or not entry.is_dir() or entry.name.startswith("."):
            continue
        if cached := _CACHED.fullmatch(entry.name):
            if (snapshot := _snapshot(entry)) is not None:
                yield ".".join((*parts, *filter(None, cached.groups()))), snapshot
        elif _holds_model(entry):
            yield ".".join((*parts, entry.name)), entry
        elif depth > 1:
            below = list(_below(entry, (*parts, entry.name), depth - 1))
            yield from below
            if not below and (entry / CARD).is_file():  # meant as a model
                yield ".".join((*parts, entry.name)), entry


def _holds_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or any(folder.glob("*.safetensors"))


def _snapshot(cached: Path) -> Path | None:
    """The revision in the hub's cache that ``main`` stands for, or the only one."""
    snapshots = cached / "snapshots"
    try:
        main = (cached / "refs" / "main").read_text("ascii", errors="replace").strip()
    except OSError:
        main = ""
    if _REVISION.fullmatch(main) and (snapshots / main).is_dir():
        return snapshots / main
    revisions = list(snapshots.iterdir()) if snapshots.is_dir() else []
    return revisions[0] if len(revisions) == 1 and revisions[0].is_dir() else None


def read_folder(folder: Path) -> FolderFacts:
    """What the files of a model say; ``InvalidRecordError`` if one is missing or bad, or no loader takes it."""
    config = _json(folder / CONFIG)
    num_params = _count_params(folder)
    processor = next((folder / name for name in _PROCESSORS if (folder / name).is_file()), None)
    if (
        processor is None
        and "vision_config" not in config
        and any((folder / name).is_file() for name in _TOKENIZERS)
    ):
        if config.get("is_encoder_decoder"):
            raise InvalidRecordError(f"{folder}: is an encoder with a decoder; expected an encoder alone")
        return FolderFacts(num_params, None, _pooling(folder))
    if processor is None:
        raise InvalidRecordError(
            f"{folder}: there is neither {_PROCESSORS[0]}, which says how images are prepared, nor a tokenizer"
        )
    said = _json(processor)
    return FolderFacts(num_params, _input_size(said.get("image_processor", said), config), "")


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ``InvalidRecordError`` if the file is missing or holds none."""
    if not path.is_file():  # nor is a pipe opened, which nobody might write to
        raise InvalidRecordError(f"{path.parent}: there is no file {path.name}; expected a model of the hub")
    return read_json(path, MAX_JSON_BYTES)


def _count_params(folder: Path) -> int:
    """Parameters of a model, by the heads of its files; ``InvalidRecordError`` without whole safetensors."""
    if (folder / WEIGHTS).is_file():
        files = [folder / WEIGHTS]
    elif (folder / SHARDS).is_file():
        shards = _json(folder / SHARDS).get("weight_map")
        names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
        if not names or not all(map(_SHARD.fullmatch, names)):
            raise InvalidRecordError(f"{folder / SHARDS}: names no files in this folder")
        files = [folder / name for name in names]
    elif (folder / "adapter_model.safetensors").is_file():
        raise InvalidRecordError(f"{folder}: holds an adapter; expected a whole model with {WEIGHTS}")
    else:
        raise InvalidRecordError(f"{folder}: there is no file {WEIGHTS}; weights of other kinds are not read")
    total = sum(map(_params_in, files))
    if total < 1:
        raise InvalidRecordError(f"{folder}: its weights hold no parameters")
    return total


def _params_in(path: Path) -> int:
    """Parameters in one file; ``InvalidRecordError`` if it is missing or damaged."""
    if not path.is_file():
        raise InvalidRecordError(f"{path.parent}: there is no file {path.name}, which its index names")
    try:
        with path.open("rb") as content:
            is_pointer = content.read(8) == b"version "
        if is_pointer:
            raise InvalidRecordError(f"{path}: stands for a file of Git LFS; fetch it with `git lfs pull`")
        with safe_open(path, "np") as file:
            tensors = [file.get_slice(name) for name in file.keys() if not name.endswith(_BUFFERS)]  # noqa: SIM118
            return sum(math.prod(tensor.get_shape()) for tensor in tensors if tensor.get_dtype() in _FLOATS)
    except (OSError, SafetensorError) as err:
        raise InvalidRecordError(f"{path}: is no safetensors file, or is damaged or cut off") from err


def _input_size(processor: Any, config: dict[str, Any]) -> int | None:
    """Side of the images, by what prepares them, else by the network."""
    said = processor if isinstance(processor, dict) else {}
    cropped = said.get("crop_size") if said.get("do_center_crop") else None
    part = config.get("vision_config")
    sides = (cropped, said.get("size"), (part if isinstance(part, dict) else config).get("image_size"))
    return next((side for side in map(_side, sides) if side is not None), None)


def _side(size: Any) -> int | None:
    if isinstance(size, dict):
        height, width = size.get("height"), size.get("width")
        size = size.get("shortest_edge") or (height if height == width else None)
    return size if type(size) is int and size >= 1 else None


def _pooling(folder: Path) -> str:
    """How a sentence encoder pools, if it says so."""
    said = folder / "1_Pooling" / CONFIG
    return "cls" if said.is_file() and _json(said).get("pooling_mode_cls_token") is True else "mean"
