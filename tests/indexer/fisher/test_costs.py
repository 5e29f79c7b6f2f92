"""indexer.fisher.costs: forms and memory of a probe's layers, and the batch that fits."""

import gc
from dataclasses import replace

import pytest
import torch
from torch import nn

from indexer.fisher import costs
from indexer.fisher.costs import MAX_BATCH, activation_bytes, fitting_batch_size, probe_costs
from indexer.networks.load import load_network
from indexer.networks.run import PretrainedNetwork
from indexer.records import DEFAULT_PROBE, InputTransform


@pytest.fixture(scope="module")
def probe() -> PretrainedNetwork:
    return load_network(DEFAULT_PROBE)


def network_of(body: nn.Module, pixels: int = 8) -> PretrainedNetwork:
    transform = InputTransform(pixels, pixels)
    return PretrainedNetwork(
        "test", "test", body.eval().requires_grad_(requires_grad=False), 1, 1, transform, ""
    )


def test_every_layer_of_the_built_in_probe_has_its_costs(probe: PretrainedNetwork):
    layers = probe_costs(probe).layers
    convolutions = {name: layer for name, layer in probe.body.named_modules() if isinstance(layer, nn.Conv2d)}
    assert [layer.name for layer in layers] == list(convolutions)
    for layer in layers:
        weight = convolutions[layer.name].weight
        assert (layer.kind, layer.filters, layer.weights) == ("Conv2d", len(weight), weight[0].numel())
        assert layer.form in {"direct", "shifted_gram"}
        assert layer.temporary_bytes > 0
    assert layers[0].positions == 32**2  # 64 pixels, and a stride of 2
    assert layers[0].multiply_adds == 32 * 27 * 32**2


def test_factors_of_channels_are_elementwise(probe: PretrainedNetwork):
    layers = {layer.name: layer for layer in probe_costs(probe, norm_weights=True).layers}
    assert (layers["bn1"].form, layers["bn1"].weights, layers["bn1"].multiply_adds) == ("elementwise", 1, 0)


class Odd(nn.Module):
    """Uses one layer twice, one after standardising it, and one not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.scaled = nn.Linear(3, 2)
        self.idle = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.conv(self.conv(images).relu()).mean(dim=(2, 3))
        return nn.functional.linear(hidden, self.scaled.weight - self.scaled.weight.mean())


def test_layers_without_a_plain_use_say_so():
    found = probe_costs(network_of(Odd())).layers
    assert [(layer.name, layer.form) for layer in found] == [
        ("conv", "direct"),
        ("scaled", "fallback"),
        ("idle", "unused"),
    ]
    assert found[0].positions == 2 * 8**2


def test_activations_are_counted_once_each():
    body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten())
    values = 8 * 8 * (3 + 4)  # both inputs; what the ReLU keeps is its output, which is the second of them
    assert activation_bytes(network_of(body)) == 4 * values


def test_batch_is_what_fits_half_of_the_budget(probe: PretrainedNetwork, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(costs, "activation_bytes", lambda *_arguments: 1000)
    assert fitting_batch_size(probe, 20_000) == 10
    assert fitting_batch_size(probe, 100) == 1
    assert fitting_batch_size(probe, 10**9) == MAX_BATCH
    assert probe_costs(probe, memory_budget=16 * 2**20).batch_size == MAX_BATCH


def test_larger_images_need_more_memory(probe: PretrainedNetwork):
    larger = replace(probe, transform=replace(probe.transform, resize=128, crop=128))
    assert activation_bytes(larger) == pytest.approx(4 * activation_bytes(probe), rel=0.01)


def test_network_is_left_as_found(probe: PretrainedNetwork):
    probe_costs(probe)
    assert not any(parameter.requires_grad for parameter in probe.body.parameters())
    assert torch.overrides._get_current_function_mode() is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit, in favour of torch.export
def test_torchscript_takes_the_slow_route_for_all_layers():
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))
    assert [layer.form for layer in probe_costs(network_of(nn.Sequential(scripted))).layers] == ["fallback"]


def test_counting_leaves_nothing_behind() -> None:
    """A process that embeds thousands of tasks counts for each; it used to keep 3 MB every time."""
    network = load_network("resnet14w16.tiny_imagenet")

    def objects_after_counting() -> int:
        activation_bytes(network)
        gc.collect()
        return len(gc.get_objects())

    objects_after_counting()
    before = objects_after_counting()
    assert objects_after_counting() - before < 20  # 140 hooks and cells of each pass were held by its graph
