"""Network architectures that this package defines itself.

Only one: the residual network of He et al. for small images, with a width and a stem stride, because
torchvision has none for inputs below 224 pixels. The built-in probe and experts are this network.

Axes: N samples, C channels or classes, H and W pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a parameter-free ("option A") shortcut.

    Source:
        He, Zhang, Ren, Sun 2015, arXiv 1512.03385, section 4.2: where the shape changes, the shortcut
        subsamples the pixels and pads the new channels with zeros.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, out_channels, H/stride, W/stride]``."""
        hidden = torch.relu(self.bn1(self.conv1(images)))
        hidden = self.bn2(self.conv2(hidden))
        shortcut = images[:, :, :: self.stride, :: self.stride]
        before = self.new_channels // 2
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, before, self.new_channels - before))
        return torch.relu(hidden + shortcut)


class SmallResNet(nn.Module):
    """Residual network of depth 6n+2 for small images.

    Three stages of n blocks with ``width``, ``2 * width`` and ``4 * width`` filters; each stage after
    the first halves the resolution. ``depth=20, width=16, stem_stride=1`` is the ResNet-20 of the
    paper's CIFAR-10 experiments.

    Args:
        depth: Number of weighted layers, 6n+2.
        num_classes: Number of outputs C.
        width: Filters of the first stage.
        stem_stride: Stride of the first convolution; 2 lets 64-pixel images cost what 32-pixel ones do.

    Source:
        He, Zhang, Ren, Sun 2015, arXiv 1512.03385, section 4.2. Width and stem stride are ours.
    """

    def __init__(self, depth: int, num_classes: int, width: int = 16, stem_stride: int = 1) -> None:
        super().__init__()
        blocks_per_stage, remainder = divmod(depth - 2, 6)
        if remainder or blocks_per_stage < 1:
            raise ValueError(f"depth must be 6n+2 with n of at least 1 (8, 14, 20, ...), got {depth}")
        self.conv1 = nn.Conv2d(3, width, 3, stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks_per_stage, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks_per_stage, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks_per_stage, stride=2)
        self.linear = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[N, 3, H, W]`` to logits ``[N, C]``."""
        hidden = torch.relu(self.bn1(self.conv1(images)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        logits: Tensor = self.linear(hidden.mean(dim=(2, 3)))
        return logits


def _stage(in_channels: int, out_channels: int, num_blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    rest = (BasicBlock(out_channels, out_channels, 1) for _ in range(num_blocks - 1))
    return nn.Sequential(first, *rest)
