"""Slow, obviously right twins of indexer.square_grads and indexer.fisher.

One sample at a time, through ordinary weight gradients, or the whole Fisher matrix.

Axes: N samples, S directions a sample, C outputs, P parameters.
"""

import itertools

import numpy as np
import torch
from torch import Tensor, distributions, nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Embedding, *TRANSPOSED)


def embedded_weights(network: nn.Module, *, norm_weights: bool = False) -> dict[str, nn.Parameter]:
    """Weights that have a place in the embedding, by the name of their layer."""
    kinds = (*KINDS, *NORMS) if norm_weights else KINDS
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, kinds)]
    return {name: layer.weight for name, layer in layers if layer.weight is not None}


def mean_of_filters(layer: nn.Module | None, values: Tensor) -> Tensor:
    """Mean of the values ``[*weight.shape]`` of each filter of a layer, one filter after the other."""
    if isinstance(layer, NORMS):
        return values.flatten()
    if isinstance(layer, nn.Embedding):
        return torch.stack([values[:, column].mean() for column in range(layer.embedding_dim)])
    if isinstance(layer, TRANSPOSED):
        inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        blocks = [values[group * inputs : (group + 1) * inputs] for group in range(layer.groups)]
        return torch.stack([block[:, output].mean() for block in blocks for output in range(outputs)])
    return torch.stack([row.mean() for row in values])


def square_grads_one_by_one(
    network: nn.Module, images: Tensor, directions: Tensor, *, norm_weights: bool = False
) -> dict[str, Tensor]:
    """By layer ``[N, filters]``: squared gradients along ``[S, N, C]``, summed over S, mean of a filter."""
    weights = embedded_weights(network, norm_weights=norm_weights)
    return square_grads_of_parameters(network, weights, images, directions)


def square_grads_of_parameters(
    network: nn.Module, weights: dict[str, nn.Parameter], images: Tensor, directions: Tensor
) -> dict[str, Tensor]:
    """The same for parameters by the name of their layer, or by their own."""
    layers = dict(network.named_modules())
    rows: dict[str, list[Tensor]] = {name: [] for name in weights}
    for sample, image in enumerate(images):
        output = network(image[None])[0]
        totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for direction in directions[:, sample]:
            scalar = (direction * output).sum()
            grads = torch.autograd.grad(
                scalar, list(weights.values()), retain_graph=True, materialize_grads=True
            )
            for total, grad in zip(totals.values(), grads, strict=True):
                total += grad**2
        for name, total in totals.items():
            rows[name].append(mean_of_filters(layers.get(name), total))
    return {name: torch.stack(row) for name, row in rows.items()}


def relative_errors(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Per value, |found - expected| / max(|expected|, 1e-3 of the layer's largest).

    A gradient is a sum over positions and rounded in proportion to its terms. Where these cancel, no float32
    sum has a small relative error, and ours has a larger one than torch.func; hence the floor.
    """
    floor = 1e-3 * np.abs(expected).max() + np.finfo(expected.dtype).tiny
    return np.abs(found - expected) / np.maximum(np.abs(expected), floor)


def check_layers(
    found: Tensor, slices: dict[str, slice], expected: dict[str, Tensor], tolerance: float
) -> None:
    """Compare shapes, then values, and report all layers that differ in one message."""
    assert list(slices) == list(expected), f"layers {list(slices)}, expected {list(expected)}"
    shapes = {name: (tuple(found[:, slices[name]].shape), tuple(rows.shape)) for name, rows in expected.items()}
    wrong_shapes = [f"{name}: {got}, expected {want}" for name, (got, want) in shapes.items() if got != want]
    assert not wrong_shapes, "\n".join(["shapes differ:", *wrong_shapes])
    errors = {
        name: relative_errors(found[:, slices[name]].cpu().numpy(), rows.cpu().numpy()).max()
        for name, rows in expected.items()
    }
    wrong = [f"{name}: relative error {error:.1e}" for name, error in errors.items() if not error <= tolerance]
    assert not wrong, "\n".join([f"beyond {tolerance:.0e}:", *wrong])


def score_covariance(kind: str, logits: Tensor, variance: np.ndarray) -> Tensor:
    """Covariance ``[N, C, C]`` of d log p(y | logits) / d logits at ``[N, C]``, y being of that kind of task.

    ``variance`` ``[C]`` is that of a regression.
    """
    if kind == "single_label":
        probs = logits.softmax(dim=1)
        return probs.diag_embed() - probs[:, :, None] * probs[:, None, :]
    if kind == "multi_label":
        probs = logits.sigmoid()
        return (probs * (1 - probs)).diag_embed()
    return torch.from_numpy(1 / variance).to(logits).expand_as(logits).diag_embed()


def label_distribution(kind: str, logits: Tensor, variance: np.ndarray) -> distributions.Distribution:
    """p(y | logits) of each sample, for logits ``[N, C]``; ``variance`` ``[C]`` is that of a regression."""
    if kind == "single_label":
        return distributions.Categorical(logits=logits)
    if kind == "multi_label":
        return distributions.Independent(distributions.Bernoulli(logits=logits), 1)
    return distributions.Independent(distributions.Normal(logits, torch.from_numpy(variance).sqrt()), 1)


def score_outcomes(
    estimator: str, kind: str, logits: Tensor, variance: np.ndarray
) -> list[tuple[float, np.ndarray]]:
    """Probability and direction ``[C]`` of everything that an estimator can draw at logits ``[C]``.

    ``montecarlo`` draws a label, of which a regression has too many, and ``signed`` signs for terms whose outer
    products sum to the covariance.
    """
    classes = np.eye(len(logits))
    if kind == "single_label":
        probs = logits.softmax(dim=0).numpy()
        sampled = list(zip(probs, classes - probs, strict=True))
        terms = np.sqrt(probs)[:, None] * (classes - probs)
    else:
        probs = logits.sigmoid().numpy()
        subsets = [np.array(subset) for subset in itertools.product([0, 1], repeat=len(probs))]
        sampled = [(np.where(subset, probs, 1 - probs).prod(), subset - probs) for subset in subsets]
        terms = classes * np.sqrt(probs * (1 - probs) if kind == "multi_label" else 1 / variance)
    if estimator == "montecarlo":
        return sampled
    signs = [np.array(sign) for sign in itertools.product([-1, 1], repeat=len(terms))]
    return [(1 / len(signs), sign @ terms) for sign in signs]


def fisher_matrix(network: nn.Module, images: Tensor, covariances: Tensor) -> Tensor:
    """Whole Fisher matrix ``[P, P]`` of the embedded weights: mean over samples of J^T Cov J.

    ``network`` gives logits, J ``[C, P]`` is their Jacobian, and ``covariances`` ``[N, C, C]`` are those of the
    score; P runs over ``embedded_weights`` in order, each flattened.
    """
    weights = {f"{name}.weight": weight.detach() for name, weight in embedded_weights(network).items()}

    def logits_of(weights: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(network, weights, (image[None],))[0]

    matrices = []
    for image, covariance in zip(images, covariances, strict=True):
        by_name = torch.func.jacrev(logits_of)(weights, image)
        jacobian = torch.cat([rows.flatten(1) for rows in by_name.values()], dim=1)
        matrices.append(jacobian.T @ covariance @ jacobian)
    return torch.stack(matrices).mean(dim=0)
