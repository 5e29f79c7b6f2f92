"""The published variational estimate of Fisher information: how much noise a task lets each filter bear.

It stands beside the published recipe, for comparison: it needs hundreds of passes, looks at the labels of the
data and ranks filters less sharply than the estimators of ``indexer.fisher.estimate``, so ``t2v`` does not
offer it.

Around the weights w of each embedded layer a normal distribution with one variance per filter is learned,
together with one prior variance per layer, to minimise

    E_{v ~ N(w, Λ)} [H(v)] + β KL(N(w, Λ) || N(0, λ²)),   H = mean negative log likelihood of the labels.

To second order in the noise a filter of K weights with mean Fisher information F adds K F Λ / 2 to H, so that
at the optimum 1/Λ = F/β + 1/λ². We report F = β (1/Λ - 1/λ²), clipped at 0, in the unit of all estimators.

What sets this F apart from theirs: it is the curvature of the loss of the dataset's labels; noise that is not
small sees more than the curvature; and in a layer that works on many positions, such as a convolution, local
reparametrisation draws the noise of each position on its own, so that squared gradients are summed over
positions, where Fisher information squares their sum.

Axes: N samples, C classes, F features of the body, O filters of a layer, K weights of a filter, D filters of
the network.

Source:
    Achille et al. 2019, arXiv 1902.03545, section 3.1 and appendix; local reparametrisation: Kingma, Salimans,
    Welling 2015, arXiv 1506.02557. Their expansion of H lacks the factor 1/2, hence their F = β/2 (1/Λ - 1/λ²);
    with it F would be half of what the other estimators give. As their code (not their formula) has it, the
    KL divergence is that from N(w, Λ) rather than N(0, Λ): else λ² = mean Λ, and both shrink without end.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from indexer.errors import TooFewSamplesError, UnsupportedLayerError
from indexer.heads.heads import LinearHead
from indexer.networks.run import on_device_of

NOISE_COST = 1.0
"""β times the number of weights, in nats. At the optimum each weight adds at most β/2 to the loss, whatever its
Fisher information, so the noise costs at most half a nat a sample in a network of any size. With less, what the
noise does to the loss drowns in the differences between samples; more sees beyond the curvature.
"""

MIN_EPOCHS = 10
MIN_STEPS = 300
"""Of small tasks, whose epochs have few batches."""

LEARNING_RATE = 0.1
"""Of Adam, in nats of log variance a step: a variance reaches its place in some tens of steps."""

START = 0.05
"""Variance of the noise at the start, in mean squares of the layer's weights."""

NUM_MEANS = 10
"""Means of consecutive steps that the standard error is taken from, long enough to be nearly independent."""


class VariationalEstimate(NamedTuple):
    """Fisher information of every filter, as ``indexer.fisher.estimate.FisherEstimate`` has it."""

    mean: np.ndarray
    standard_error: np.ndarray
    num_samples: int


class _NoisyLayer:
    """One layer, with noise in its outputs whose variance is learned.

    Attributes:
        log_variance: ``[O]``: log Λ of each filter.
        log_prior: Scalar: log λ².
        used: Whether the layer has been called.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        """Start from noise that is small beside the weights."""
        weight = layer.weight.detach()
        self.layer = layer
        self.num_weights = weight[0].numel()
        self.used = False
        power = weight.square().mean().clamp_min(torch.finfo(weight.dtype).tiny)
        self._squared_norm = weight.square().sum()
        self.log_prior = power.log().requires_grad_()
        self.log_variance = (START * power).log().repeat(len(weight)).requires_grad_()

    def add_noise(self, inputs: Tensor, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Outputs plus noise of the variance that noise in the weights would give each of them."""
        self.used = True
        noise = torch.randn(outputs.shape, generator=generator).to(outputs)
        deviation = (self.log_variance / 2).exp()
        if isinstance(self.layer, nn.Linear):
            power = inputs.square().sum(dim=-1, keepdim=True)
        else:
            power, deviation = _window_power(self.layer, inputs), deviation[:, None, None]
        # The root has no gradient at zero, where a filter sees nothing.
        return outputs + noise * power.clamp_min(torch.finfo(power.dtype).tiny).sqrt() * deviation

    def divergence(self) -> Tensor:
        """KL(N(w, Λ) || N(0, λ²)) of all weights of the layer, in nats."""
        ratios = self.log_variance - self.log_prior
        spread = self.num_weights * (ratios.exp() - 1 - ratios).sum()
        return (spread + self._squared_norm * (-self.log_prior).exp()) / 2

    @torch.no_grad()
    def information(self) -> Tensor:
        """1/Λ - 1/λ² of each filter: ``[O]``."""
        return (-self.log_variance).exp() - (-self.log_prior).exp()


def _window_power(conv: nn.Conv2d, inputs: Tensor) -> Tensor:
    """Sum of the squared inputs that each output of a convolution sees: ``[N, 1 or O, H, W]``."""
    ones = torch.ones_like(conv.weight[: conv.groups])  # one filter for each group
    power: Tensor = conv._conv_forward(inputs.square(), ones, None)  # with the layer's own padding, of any mode
    return power if conv.groups == 1 else power.repeat_interleave(conv.out_channels // conv.groups, dim=1)


def variational_information(
    body: nn.Module,
    head: LinearHead,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    layers: Iterable[str],
    generator: torch.Generator,
    progress: Callable[[int], object] | None = None,
) -> VariationalEstimate:
    """Learn the noise that each filter of ``layers`` bears; the network is left as it was.

    Runs ``MIN_EPOCHS`` epochs, or as many as give ``MIN_STEPS`` steps. The result is the mean over the second
    half of the steps; its error comes from the means of ``NUM_MEANS`` consecutive parts of that half. It covers
    the noise of batches and of draws, but not the choice of samples, since all epochs see the same ones.

    Args:
        body: Network in eval mode, images to features ``[N, F]``.
        head: Logits are features @ weight.T + bias; its kind says what the labels are.
        batches: Re-iterable: normalised images ``[N, 3, H, W]`` and the dataset's labels.
        layers: Names of the embedded layers, in the order of the result.
        generator: On the CPU.
        progress: Called after each step with the share of the work that is done, in samples.

    Returns:
        Mean and standard error of the D filters.

    Raises:
        TooFewSamplesError: If there are fewer than two samples.
        UnsupportedLayerError: If a layer is neither a Conv2d nor a Linear.
    """
    sizes = [len(labels) for _, labels in batches]
    num_samples = sum(sizes)
    if num_samples < 2:
        raise TooFewSamplesError(
            "Fisher information", f"needs at least 2 samples for its error, got {num_samples}"
        )
    num_epochs = max(MIN_EPOCHS, ceil(MIN_STEPS / len(sizes)))
    num_steps = num_epochs * len(sizes)
    first = num_steps // 2  # of the steps that are averaged
    noisy = _noisy_layers(body, layers)
    sums = torch.zeros(NUM_MEANS, sum(len(layer.log_variance) for layer in noisy.values()), dtype=torch.float64)
    counts = torch.zeros(NUM_MEANS, 1)
    with _noise_attached(body, noisy, generator):
        epochs = chain.from_iterable(repeat(batches, num_epochs))
        steps = _descend(body, head, epochs, noisy, num_samples / len(sizes))
        for step, information in enumerate(steps):
            if step >= first:
                part = (step - first) * NUM_MEANS // (num_steps - first)
                sums[part] += information
                counts[part] += 1
            if progress:
                progress(num_samples * (step + 1) // num_steps)
    means = (sums / counts).numpy()
    mean = (sums.sum(dim=0) / counts.sum()).clamp_min(0).numpy()
    return VariationalEstimate(mean, means.std(axis=0, ddof=1) / NUM_MEANS**0.5, num_samples)


def _noisy_layers(body: nn.Module, names: Iterable[str]) -> dict[str, _NoisyLayer]:
    """The layers of those names, in that order.

    Raises:
        UnsupportedLayerError: If there is no formula for the variance of a layer's outputs.
    """
    modules, noisy = dict(body.named_modules()), {}
    for name in names:
        module = modules.get(name)
        if not isinstance(module, nn.Conv2d | nn.Linear) or type(module) not in (nn.Conv2d, nn.Linear):
            kind = type(module).__name__ if module else "a parameter"
            raise UnsupportedLayerError(
                f"the estimator 'variational' has noise for Conv2d and Linear only, not for layer {name!r} "
                f"({kind}); use another estimator, or leave normalisation layers out"
            )
        noisy[name] = _NoisyLayer(module)
    return noisy


@contextmanager
def _noise_attached(
    body: nn.Module, noisy: dict[str, _NoisyLayer], generator: torch.Generator
) -> Iterator[None]:
    """Let the layers add their noise while the body's own parameters are frozen."""
    trained = [parameter for parameter in body.parameters() if parameter.requires_grad]
    body.requires_grad_(False)
    hooks = [
        body.get_submodule(name).register_forward_hook(
            lambda _layer, args, outputs, noise=noise: noise.add_noise(args[0], outputs, generator)
        )
        for name, noise in noisy.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in trained:
            parameter.requires_grad_(True)


def _descend(
    body: nn.Module,
    head: LinearHead,
    batches: Iterable[tuple[Tensor, Tensor]],
    noisy: dict[str, _NoisyLayer],
    batch_size: float,
) -> Iterator[Tensor]:
    """Take a step of Adam for each batch, and give the information F ``[D]``, float64 on the CPU, after it.

    ``batch_size`` is the mean one; the sum over a batch is divided by it, so that every sample counts the same.
    """
    parameter = next(body.parameters())
    weight, bias = (torch.from_numpy(values).to(parameter) for values in (head.weight, head.bias))
    beta = NOISE_COST / sum(layer.num_weights * len(layer.log_variance) for layer in noisy.values())
    parameters = [parameter for layer in noisy.values() for parameter in (layer.log_variance, layer.log_prior)]
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    for images, labels in batches:
        logits = body(on_device_of(weight, images)) @ weight.T + bias
        _check_used(noisy)
        losses = _negative_log_likelihood(head, logits, labels.to(weight.device))
        divergence = torch.stack([layer.divergence() for layer in noisy.values()]).sum()
        optimiser.zero_grad()
        (losses.sum() / batch_size + beta * divergence).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        yield beta * torch.cat([layer.information() for layer in noisy.values()]).double().cpu()


def _negative_log_likelihood(head: LinearHead, logits: Tensor, labels: Tensor) -> Tensor:
    """Loss of each sample in nats ``[N]``, summed over its labels or targets, up to a constant."""
    if head.kind == "single_label":
        return functional.cross_entropy(logits, labels, reduction="none")
    if head.kind == "multi_label":
        losses = functional.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="none")
        return losses.sum(dim=1)
    precision = torch.as_tensor(1 / np.asarray(head.variance)).to(logits)
    return ((labels.to(logits) - logits).square() * precision / 2).sum(dim=1)


def _check_used(noisy: dict[str, _NoisyLayer]) -> None:
    """Refuse a layer whose weight the network hands to a function without calling the layer.

    Raises:
        UnsupportedLayerError: If a layer added no noise in a forward pass.
    """
    for name, layer in noisy.items():
        if not layer.used:
            raise UnsupportedLayerError(
                f"the estimator 'variational' cannot add noise to layer {name!r}, which the network does not "
                "call; use another estimator"
            )
