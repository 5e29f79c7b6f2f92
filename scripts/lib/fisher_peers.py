"""Ways to sum squared per-sample gradients over each filter: ours, and those of other libraries.

Every route of ``ROUTES`` is made ready for one network and one batch, and then run as often as one likes. It
gives the same figures: by layer ``[filters]``, the mean over a filter's weights of the square of the gradient
of ``(logits[n] * directions[n]).sum()``, mean over samples n.

Axes: N samples, C classes, D directions, all in the batch at hand.
"""

from collections.abc import Callable
from copy import deepcopy
from types import MethodType
from typing import Any

import torch
from fresh_process import RefusalError
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import DataLoader, TensorDataset

from indexer.errors import UnsupportedLayerError
from indexer.fisher.square_grads import SquareGrads
from indexer.networks.torchvision import models

NUM_CLASSES = 100

Squares = dict[str, Tensor]
Run = Callable[[], Squares | None]


def build(name: str, pixels: int, device: torch.device) -> nn.Module:
    """A random network of torchvision, channels last, in eval mode, with norm statistics other than 0 and 1."""
    size = {"image_size": pixels} if name.startswith("vit") else {}
    network = getattr(models, name)(num_classes=NUM_CLASSES, **size).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    if name.startswith("vit"):
        nn.init.normal_(network.heads.head.weight, std=0.02)  # zero at first, so that no gradient passes
    return network.to(device).to(memory_format=torch.channels_last)


def embedded_weights(network: nn.Module) -> dict[str, str]:
    """Layer to the name of its weight, for the layers that ours embeds, or would if it took the network."""
    parameters = {name for name, _ in network.named_parameters()}
    try:
        layers = list(SquareGrads(network).slices)
    except UnsupportedLayerError:
        kinds = nn.Conv2d | nn.Linear | nn.MultiheadAttention
        layers = [name for name, layer in network.named_modules() if isinstance(layer, kinds)]
    weights = {}
    for layer in layers:
        forms = (f"{layer}.weight".removeprefix("."), f"{layer}.in_proj_weight", layer)
        weights[layer] = next(form for form in forms if form in parameters)
    return weights


def filter_means(network: nn.Module, sums: dict[str, Tensor], num_samples: int) -> Squares:
    """From sums over samples, by parameter and in its shape, to what every route gives.

    Raises:
        RefusalError: If a weight is missing.
    """
    weights = embedded_weights(network)
    missing = [name for name in weights.values() if name not in sums]
    if missing:
        raise RefusalError(f"leaves out {len(missing)} of {len(weights)} weights, such as {missing[0]}")
    return {layer: sums[name].flatten(1).mean(dim=1) / num_samples for layer, name in weights.items()}


def ours(network: nn.Module, images: Tensor, directions: Tensor) -> Run:
    """``indexer.fisher.square_grads``, which gives every sample; in one context, as for a whole task."""
    network = deepcopy(network)
    grads = SquareGrads(network).__enter__()

    def run() -> Squares:
        network(images).backward(directions)
        means = grads.take().mean(dim=0)
        return {name: means[columns] for name, columns in grads.slices.items()}

    return run


def plain(network: nn.Module, images: Tensor, directions: Tensor) -> Run:
    """What a training step does: gradients of all weights, summed over the batch, and no squares."""

    def run() -> None:
        network.zero_grad()
        network(images).backward(directions)

    return run


def torch_func(network: nn.Module, images: Tensor, directions: Tensor, *, chunk_size: int | None = None) -> Run:
    """``vmap(grad)`` as the documentation of torch.func has it: all samples at once, or in chunks."""
    names = embedded_weights(network).values()
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    weights = {name: parameters[name] for name in names}

    def scalar(weights: Squares, image: Tensor, direction: Tensor) -> Tensor:
        return (functional_call(network, parameters | weights, (image[None],))[0] * direction).sum()

    sample_grads = vmap(grad(scalar), in_dims=(None, 0, 0))

    def run() -> Squares:
        sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        rows = chunk_size or len(images)
        for chunk in zip(images.split(rows), directions.split(rows), strict=True):
            for name, grads in sample_grads(weights, *chunk).items():
                sums[name] += grads.square_().sum(dim=0)
        return filter_means(network, sums, len(images))

    return run


def backpack(network: nn.Module, images: Tensor, directions: Tensor) -> Run:
    """BackPACK's ``SumGradSquared``; its hooks need a network that writes nothing in place."""
    import backpack as library
    from backpack.extensions import SumGradSquared

    extended = library.extend(out_of_place(network))

    def run() -> Squares:
        extended.zero_grad()
        with library.backpack(SumGradSquared()):
            (extended(images) * directions).sum().backward()
        sums = {
            name: parameter.sum_grad_squared
            for name, parameter in extended.named_parameters()
            if hasattr(parameter, "sum_grad_squared")
        }
        return filter_means(network, sums, len(images))

    return run


def opacus(network: nn.Module, images: Tensor, directions: Tensor) -> Run:
    """Opacus' ``GradSampleModule``, whose per-sample gradients are squared and summed here.

    It looks on in training mode only, hence dropout is switched off by itself; and of inputs with channels last
    its convolutions give wrong figures, hence everything is made contiguous.

    Raises:
        RefusalError: If Opacus would refuse the network.
    """
    from opacus import GradSampleModule

    if any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()):
        raise RefusalError("refuses batch norm, in eval mode too")
    images = images.contiguous()
    copy = out_of_place(network).to(memory_format=torch.contiguous_format)
    module = GradSampleModule(copy, loss_reduction="sum").train()
    for layer in module.modules():
        layer.train(mode=not isinstance(layer, nn.Dropout))

    def run() -> Squares:
        module.zero_grad()
        (module(images) * directions).sum().backward()
        sums = {}
        for name, parameter in module.named_parameters():
            sums[name.removeprefix("_module.")] = parameter.grad_sample.square_().sum(dim=0)
            parameter.grad_sample = None
        return filter_means(network, sums, len(images))

    return run


def nngeometry(network: nn.Module, images: Tensor, directions: Tensor) -> Run:
    """NNGeometry's diagonal of J^T J, the directions making one output.

    Raises:
        RefusalError: If NNGeometry would refuse the network.
    """
    from nngeometry.backend import TorchHooksJacobianBackend
    from nngeometry.layercollection import LayerCollection
    from nngeometry.object.pspace import PMatDiag

    if any(isinstance(layer, nn.MultiheadAttention) for layer in network.modules()):
        raise RefusalError("has no rule for MultiheadAttention")
    if any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in network.modules()):
        raise RefusalError("takes grouped convolutions for ungrouped ones")
    layers = LayerCollection.from_model(network)
    jacobian = TorchHooksJacobianBackend(
        model=network,
        function=lambda images, directions: (network(images) * directions).sum(dim=1, keepdim=True),
        layer_collection=layers,
    )
    loader = DataLoader(TensorDataset(images, directions), batch_size=len(images))
    parameters = dict(layers.named_parameters(layers.get_layerid_module_maps(network)[0]))

    def run() -> Squares:
        diagonal = PMatDiag(generator=jacobian, examples=loader).get_diag()
        parts = diagonal.split([parameter.numel() for parameter in parameters.values()])
        means = {
            name: part.view_as(parameter)
            for (name, parameter), part in zip(parameters.items(), parts, strict=True)
        }
        return filter_means(network, means, num_samples=1)  # its diagonal is a mean over samples already

    return run


def curvlinops(network: nn.Module, images: Tensor, directions: Tensor) -> Run:
    """The diagonal of curvlinops' KFAC, which has no exact one: another figure, of the same weights.

    Raises:
        RefusalError: If a layer is none that KFAC knows.
    """
    from curvlinops import FisherType, KFACLinearOperator

    if any(isinstance(layer, nn.MultiheadAttention) for layer in network.modules()):
        raise RefusalError("has no rule for MultiheadAttention")
    if any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in network.modules()):
        raise RefusalError("has no rule for grouped convolutions")
    module = _Scores(out_of_place(network))
    weights = {f"network.{name}" for name in embedded_weights(network).values()}
    batch = {"images": images, "directions": directions}
    with torch.no_grad():
        targets = module(batch) - 0.5  # so that the derivative of the squared error is 1
    operator = KFACLinearOperator(
        module,
        nn.MSELoss(reduction="sum"),
        [parameter for name, parameter in module.named_parameters() if name in weights],
        [(batch, targets)],
        check_deterministic=False,
        fisher_type=FisherType.EMPIRICAL,
        num_data=len(images),
        num_per_example_loss_terms=1,
        batch_size_fn=lambda batch: len(batch["images"]),
    )

    def run() -> Squares:
        operator._input_covariances, operator._gradient_covariances = {}, {}
        operator.compute_kronecker_factors()
        inputs, grads = operator._input_covariances, operator._gradient_covariances
        sums = {
            f"{name.removeprefix('network.')}.weight": torch.outer(
                grads[name].diagonal(), inputs[name].diagonal()
            )
            for name in grads
        }
        return filter_means(network, sums, len(images))

    return run


class _Scores(nn.Module):
    """One output a sample: its logits along its direction."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """``[N, 1]``."""
        return (self.network(batch["images"]) * batch["directions"]).sum(dim=1, keepdim=True)


ROUTES: dict[str, Callable[..., Run]] = {
    route.__name__: route for route in (ours, plain, torch_func, backpack, opacus, nngeometry, curvlinops)
}
APPROXIMATE = frozenset({"curvlinops"})
"""Routes whose figures are others, and are timed nevertheless."""


def out_of_place(network: nn.Module) -> nn.Module:
    """A copy that computes the same and overwrites nothing, because backward hooks on views forbid it."""
    copy = deepcopy(network)
    for layer in copy.modules():
        if hasattr(layer, "inplace"):
            layer.inplace = False
        forward = _OUT_OF_PLACE_FORWARDS.get(type(layer).__name__)
        if forward:
            layer.forward = MethodType(forward, layer)
    return copy


def _forward_basic_block(block: Any, inputs: Tensor) -> Tensor:
    """Of torchvision's ResNet; it adds the shortcut in place."""
    hidden = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(inputs)))))
    shortcut = inputs if block.downsample is None else block.downsample(inputs)
    return block.relu(hidden + shortcut)


def _forward_inverted_residual(block: Any, inputs: Tensor) -> Tensor:
    """Of torchvision's MobileNetV3; the same."""
    return inputs + block.block(inputs) if block.use_res_connect else block.block(inputs)


_OUT_OF_PLACE_FORWARDS = {"BasicBlock": _forward_basic_block, "InvertedResidual": _forward_inverted_residual}


def largest_error(found: Squares, expected: Squares, floor: float = 1e-3) -> float:
    """Largest |found - expected| / max(|expected|, floor of the layer's largest) over all filters."""
    errors = []
    for name, values in expected.items():
        values = values.double()
        scale = values.clamp_min(max(floor * values.max().item(), torch.finfo(torch.float64).tiny))
        errors.append(((found[name].double() - values).abs() / scale).max())
    return torch.stack(errors).max().item()
