"""Which weights are on this machine: asked of the caches of libraries, without torch wherever that can be."""

import os
from importlib.util import find_spec
from pathlib import Path

from indexer.errors import UnknownNameError
from indexer.networks.loaders import Loader, list_builtin, parse_loader
from indexer.networks.packaged import PACKAGED, is_packaged_here

_WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pth", ".pt"}
_LIBRARIES = {"timm": "timm", "hf": "transformers"}


def is_loadable_offline(text: str, cached_as: str = "") -> bool:
    """Whether a loader finds its weights on this machine.

    That holds for weights that ship with this package or come as a pip package, for files and folders that are
    there, and for what was fetched before: into the cache of the hub of torch (torchvision, some of timm) or of
    Hugging Face. The library has to be installed. Nothing is opened, so a damaged file counts. A function of
    Python does not: nobody knows what it reads.

    Args:
        text: The loader.
        cached_as: What the weights are called in a cache, see ``indexer.networks.zoo.ZooNetwork``. Without it
            the library is asked, which loads torch, but only if there is anything in the caches.
    """
    try:
        return _is_here(parse_loader(text), cached_as)
    except (UnknownNameError, OSError, ValueError, RuntimeError):
        return False  # no loader, or a path that none can be: too long, with a zero byte, in the home of nobody


def _is_here(loader: Loader, cached_as: str) -> bool:
    if loader.source in _LIBRARIES and find_spec(_LIBRARIES[loader.source]) is None:
        return False
    if loader.source == "hf" and loader.is_folder:
        return Path(loader.name).expanduser().is_dir()
    if loader.file:
        return loader.file.is_file()
    if loader.source == "python":
        return False
    if loader.source == "named" and loader.name in list_builtin():
        return True
    if loader.source == "named" and loader.name in PACKAGED:
        return is_packaged_here(loader.name)
    return _is_cached(cached_as or _looked_up(loader))


def torch_cache() -> Path:
    """Where torch's hub keeps files, as ``torch.hub.get_dir`` says."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    return Path(os.environ.get("TORCH_HOME", default)).expanduser() / "hub" / "checkpoints"


def hugging_face_cache() -> Path:
    """Where ``huggingface_hub`` keeps repositories, as ``huggingface_hub.constants.HF_HUB_CACHE`` says."""
    home = os.environ.get("HF_HOME", Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    folder = os.environ.get("HUGGINGFACE_HUB_CACHE", Path(home) / "hub")
    return Path(os.path.expandvars(os.environ.get("HF_HUB_CACHE", folder))).expanduser()


def _looked_up(loader: Loader) -> str:
    """The name in a cache of weights that were registered without it; empty if no cache could have them."""
    if loader.source == "hf":
        return f"hf:{loader.name}"
    caches = [torch_cache()] if loader.source == "named" else [torch_cache(), hugging_face_cache()]
    if not any(cache.is_dir() and any(cache.iterdir()) for cache in caches):
        return ""
    from indexer.networks.zoo import cached_name

    return cached_name(loader)


def _is_cached(cached_as: str) -> bool:
    """Whether a file of torch's hub, or any weights of the last state of a repository, are in their cache."""
    where, _, name = cached_as.partition(":")
    if where == "torch":
        return (torch_cache() / name).is_file()
    if where != "hf":
        return False
    folder = hugging_face_cache() / f"models--{name.replace('/', '--')}"
    last = folder / "refs" / "main"
    snapshot = folder / "snapshots" / (last.read_text(encoding="utf-8").strip() if last.is_file() else "")
    return last.is_file() and any(
        file.suffix in _WEIGHT_SUFFIXES and file.is_file() for file in snapshot.iterdir()
    )
