"""The one door to torchvision: every other module imports its parts from here.

``import torchvision`` fails with "operator torchvision::nms does not exist" when its compiled library
cannot load, as with a CUDA build of torchvision beside a CPU build of torch: it attaches Python kernels
to two operators that only the library would have declared. Declaring them first makes the import
succeed. Their C++ kernels stay absent, which nothing here needs: networks and datasets are plain Python.

It also takes one function of torch's compiler, whose import takes as long as that of torch itself, and which
nothing here needs either: the function imports it when it is first called.
"""

import importlib.util
import sys
from importlib.machinery import PathFinder
from types import ModuleType

import torch

# What torchvision/_meta_registrations.py registers fake kernels for without asking whether the library loaded.
_OPERATORS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def _load_compiled_operators() -> None:
    """Load the library that torchvision is about to load itself, if it can be; twice does no harm."""
    package = importlib.util.find_spec("torchvision")
    if package is None or package.submodule_search_locations is None:
        return  # the import below says what is missing
    library = PathFinder.find_spec("_C", list(package.submodule_search_locations))
    if library is None or library.origin is None:
        return
    try:
        torch.ops.load_library(library.origin)  # type: ignore[no-untyped-call]
    except (ImportError, OSError):  # the two that torchvision/extension.py takes for "has no operators"
        return


def _declare_missing_operators() -> torch.library.Library | None:
    """Declare those of the operators that nobody has; the declarations live as long as the result."""
    missing = [schema for name, schema in _OPERATORS.items() if not hasattr(torch.ops.torchvision, name)]
    if not missing:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in missing:
        library.define(schema)  # type: ignore[no-untyped-call]
    return library


def _is_compile_supported(device_type: str) -> bool:
    """Whether torch compiles for a kind of device, as its compiler says."""
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))


def _stand_in_for_compiler() -> list[str]:
    """Let imports find the one function instead of the compiler; the modules to remove afterwards."""
    names = ["torch._dynamo", "torch._dynamo.utils"]
    if names[0] in sys.modules:
        return []
    sys.modules.update({name: ModuleType(name) for name in names})
    sys.modules[names[1]].__dict__["is_compile_supported"] = _is_compile_supported
    return names


_load_compiled_operators()
_declared = _declare_missing_operators()
_stand_ins = _stand_in_for_compiler()
try:
    from torchvision import datasets, models  # only now can the import succeed
finally:
    for _name in _stand_ins:
        del sys.modules[_name]

__all__ = ["datasets", "models"]
