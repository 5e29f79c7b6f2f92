"""Networks of the user's own: a Python function that returns one, and TorchScript files.

Both are programs. Importing a module runs its code. A TorchScript file holds code of its own language, which
torch's interpreter runs; its tensors come from a pickle that torch reads in C++ and that can name TorchScript's
types only, so that no Python is executed. Load only what you trust.

Axes: N samples, F features, S pixels of the input's side.
"""

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from indexer.errors import WeightsError
from indexer.networks.loaders import Loader, importable_modules, searched_folder
from indexer.networks.run import IMAGENET_TRANSFORM, Body, count_params
from indexer.records import InputTransform

TRANSFORM_FILE = "input_transform.json"
"""Extra file of a TorchScript archive: ``resize``, ``crop`` and, if not ImageNet's, ``mean`` and ``std``."""


def load_python(loader: Loader) -> Body:
    """The network that ``module:function`` returns, all that it gives being features.

    The module is looked for where Python looks, then where ``searching_modules`` says. The input transform is
    an ``InputTransform`` in an attribute ``input_transform`` of the function or of the network, else
    ``IMAGENET_TRANSFORM``.

    Raises:
        WeightsError: If there is no such module or function, it fails, or returns no network.
    """
    module_name, _, function_name = loader.name.partition(":")
    with importable_modules():
        module = _import_module(module_name, loader.text)
        build = getattr(module, function_name, None)
        if not callable(build):
            raise WeightsError(f"{loader.text}: module {module_name} has no function {function_name}")
        try:
            network = build()
        except Exception as err:  # code of others may raise anything
            raise WeightsError(
                f"{loader.text}: fails with {type(err).__name__}: {err}; expected a function of no argument"
            ) from err
    if not isinstance(network, nn.Module):
        raise WeightsError(f"{loader.text}: returns {type(network).__name__}; expected a torch.nn.Module")
    transform = getattr(build, "input_transform", getattr(network, "input_transform", IMAGENET_TRANSFORM))
    if not isinstance(transform, InputTransform):
        kind = type(transform).__name__
        raise WeightsError(f"{loader.text}: input_transform is {kind}; expected indexer.InputTransform")
    name = f"{module_name}.{function_name}"
    return Body(name, network.cpu().float(), transform, count_params(network))


def load_torchscript(loader: Loader) -> Body:
    """The network in a TorchScript file, all that it gives being features.

    Returns:
        Its input transform is that of the archive's extra file ``TRANSFORM_FILE``, else ``IMAGENET_TRANSFORM``.

    Raises:
        WeightsError: If it is no TorchScript, or holds no parameters.
    """
    path = Path(loader.file or loader.name)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected one written by torch.jit.save")
    extra = {TRANSFORM_FILE: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript itself; existing files stay
            network = torch.jit.load(path, map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
    except Exception as err:  # a damaged archive raises nearly anything
        raise WeightsError(
            f"{path}: not TorchScript; expected a file written by torch.jit.save (of a state dict, "
            "name ARCHITECTURE@FILE)"
        ) from err
    if not count_params(network):
        raise WeightsError(
            f"{path}: holds no parameters, as after torch.jit.freeze; save the network before it"
        )
    # Modules of TorchScript take no Python hooks; the sequence around this one does.
    body = nn.Sequential(network.float())
    return Body(path.stem, body, _archived_transform(extra[TRANSFORM_FILE], path), count_params(network))


def _import_module(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as err:
        if err.name and (name == err.name or name.startswith(f"{err.name}.")):
            raise WeightsError(
                f"{where}: no module {name} on Python's path or in {searched_folder()}; a loader with a colon "
                "is MODULE:FUNCTION, or begins with timm:, hf: or torchscript:"
            ) from err
        raise WeightsError(f"{where}: importing {name} fails: {err}") from err
    except Exception as err:  # code of others may raise anything
        raise WeightsError(f"{where}: importing {name} fails: {type(err).__name__}: {err}") from err


def _archived_transform(text: str | bytes, path: Path) -> InputTransform:
    if not text:
        return IMAGENET_TRANSFORM
    try:
        fields = json.loads(text)
        values: Any = {
            key: tuple(map(float, value)) if isinstance(value, list) else value for key, value in fields.items()
        }
        transform = InputTransform(**values)
        whole = isinstance(transform.resize, int) and isinstance(transform.crop, int)
        if not whole or not 0 < transform.crop <= transform.resize:
            raise ValueError("crop must be at least 1 and at most resize")
        if any(len(values) != 3 for values in (transform.mean, transform.std)) or not all(transform.std):
            raise ValueError("mean and std must be three numbers each")
    except (AttributeError, TypeError, ValueError) as err:
        raise WeightsError(
            f"{path}: its {TRANSFORM_FILE} is no input transform ({err}); expected resize, crop and, "
            "optionally, mean and std"
        ) from err
    return transform
