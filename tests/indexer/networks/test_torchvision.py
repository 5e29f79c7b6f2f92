"""indexer.networks.torchvision: torchvision imports whether or not its compiled operators can load."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from indexer.networks.torchvision import datasets, models  # before torchvision itself: this is its door

from torchvision import extension, ops  # isort: skip

# A torchvision whose operators are there already, with a kernel of our own to recognise.
WORKING_OPERATORS = """
import torch
library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl(name, lambda dets, scores, iou_threshold: torch.tensor([42]), "CPU")
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own, since operators are declared once a process."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])


def test_networks_are_built_and_compiled_operators_work_where_they_load():
    assert datasets.CIFAR10.__name__ == "CIFAR10"
    assert models.squeezenet1_0(num_classes=3).classifier[1].out_channels == 3
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    assert not extension._has_ops() or ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist() == [1]


@pytest.mark.slow
def test_the_compiler_of_torch_is_imported_when_it_is_asked():
    code = (
        "import sys\n"
        "from indexer.networks.torchvision import _is_compile_supported\n"
        "loaded = [name for name in sys.modules if name.startswith('torch._dynamo')]\n"
        "answer = _is_compile_supported('cpu')\n"
        "print(loaded, answer is sys.modules['torch._dynamo.utils'].is_compile_supported('cpu'))"
    )
    done = run(code)
    assert done.stdout.split() == ["[]", "True"], done.stderr


@pytest.mark.slow
def test_operators_that_exist_are_left_alone():
    code = (
        f"{WORKING_OPERATORS}\n"
        "from indexer.networks.torchvision import _declared, models\n"
        "boxes = torch.zeros(1, 4)\n"
        "print(_declared, torch.ops.torchvision.nms(boxes, boxes[:, 0], 0.5).item())"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["None", "42"]
