"""indexer.fisher.weight_uses: which parameters are embedded, and where their filters lie."""

import pytest
import torch
from torch import nn

from indexer.fisher.weight_uses import find_filters
from indexer.networks.torchvision import models


def found(network: nn.Module, *, norm_weights: bool = False) -> dict[str, tuple[str, int, int]]:
    """Name to layout, filters and weights of each."""
    return {
        block.name: (block.layout, block.num_filters, block.num_weights)
        for block in find_filters(network, norm_weights=norm_weights)
    }


def test_layers_say_where_their_filters_lie():
    network = nn.ModuleDict(
        {
            "conv": nn.Conv2d(4, 6, 3, groups=2),
            "up": nn.ConvTranspose2d(4, 6, 3, groups=2),
            "one": nn.Linear(5, 1),
            "table": nn.Embedding(9, 3),
            "norm": nn.BatchNorm2d(4),
            "image_norm": nn.LayerNorm((2, 3)),
        }
    )
    weights = {
        "conv": ("first", 6, 18),
        "up": ("transposed", 6, 18),
        "one": ("first", 1, 5),
        "table": ("last", 3, 9),
    }
    assert found(network) == weights
    assert found(network, norm_weights=True) == weights | {"norm": ("each", 4, 1), "image_norm": ("each", 6, 1)}


def test_what_is_added_is_left_out_whatever_it_is_called():
    network = models.VisionTransformer(
        image_size=8, patch_size=4, num_layers=1, num_heads=2, hidden_dim=6, mlp_dim=5, num_classes=3
    )
    layer = "encoder.layers.encoder_layer_0"
    assert list(found(network)) == [
        "conv_proj",
        f"{layer}.self_attention.in_proj_weight",
        f"{layer}.self_attention.out_proj",
        f"{layer}.mlp.0",
        f"{layer}.mlp.3",
        "heads.head",
    ]


def test_factors_of_channels_are_embedded_on_request():
    block = models.convnext.CNBlock(4, layer_scale=0.1, stochastic_depth_prob=0.0)
    assert "layer_scale" not in found(block)
    assert found(block, norm_weights=True)["layer_scale"] == ("each", 4, 1)


def test_shared_parameter_belongs_to_its_first_owner():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    assert list(found(network)) == ["0"]


@pytest.mark.parametrize(
    ("layer", "filter_of_weight"),
    [(nn.Linear(2, 3), lambda row, _column: row), (nn.Embedding(3, 2), lambda _row, column: column)],
)
def test_values_are_gathered_by_filter(layer: nn.Module, filter_of_weight):
    (block,) = find_filters(layer, norm_weights=False)
    rows, columns = torch.meshgrid(torch.arange(3), torch.arange(2), indexing="ij")
    owners = torch.tensor(
        [
            [filter_of_weight(int(r), int(c)) for r, c in zip(*pair, strict=True)]
            for pair in zip(rows, columns, strict=True)
        ]
    )
    gathered = block.by_filter(owners[None].float())[0]
    assert gathered.shape == (block.num_filters, block.num_weights)
    assert (gathered == torch.arange(block.num_filters)[:, None]).all()


def test_tables_of_positions_are_left_out():
    network = nn.ModuleDict({"position_embedding": nn.Embedding(4, 3), "token_mixer": nn.Linear(3, 3)})
    assert list(found(network)) == ["token_mixer"]
