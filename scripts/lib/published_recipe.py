"""The published Task2Vec recipe, restated to be timed beside ours.

Source:
    Achille et al. 2019, arXiv 1902.03545, and its code, github.com/awslabs/aws-cv-task2vec at commit 0f05c390,
    task2vec.py with its default options. In its order: features of all images are cached with batch norms in
    training mode, which moves their running statistics; a linear head of random weights is trained on them by
    Adam for 10 epochs; then the mean gradient of each batch, with labels that the model draws, is squared, and
    the squares are averaged over batches. An epoch, of the head as of the Fisher pass, is 10,000 draws with
    replacement in which all classes are equally likely, in batches of 64; the last, smaller one is dropped.

What we leave out only costs time and changes no figure, so that its seconds here are fewer than its own: data
loaders that collate one image after another, autograd graphs of the features that are cached, a second run of
the head in each step, and training metrics.

Axes: N images, C classes, F features.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from indexer.data.samples import Sample
from indexer.networks.run import PretrainedNetwork

Squares = dict[str, Tensor]


@dataclass(frozen=True)
class PublishedRecipe:
    """Its options, at their defaults.

    Attributes:
        num_draws: Draws of an epoch.
        batch_size: Of every loader.
        epochs: That the head is trained for.
        learning_rate: Of Adam.
        weight_decay: Of Adam, added to the gradient.
    """

    num_draws: int = 10_000
    batch_size: int = 64
    epochs: int = 10
    learning_rate: float = 4e-4
    weight_decay: float = 1e-4

    def embed(self, probe: PretrainedNetwork, sample: Sample, seed: int) -> Squares:
        """Embed a decoded sample.

        Args:
            probe: Left as it is: the recipe changes a copy.
            sample: Single-label, with all the images that there are to draw from.
            seed: Of the head's weights, of all draws and of the model's labels.

        Returns:
            By layer of the body ``[filters]``: mean over a filter's weights of the mean over batches of the
            squared mean gradient. Batch norms are among the layers.
        """
        generator = torch.Generator().manual_seed(seed)
        body = deepcopy(probe.body).requires_grad_(requires_grad=True).train()
        labels = torch.from_numpy(sample.labels)
        images = torch.from_numpy(sample.images)
        head = make_head(probe.num_features, int(labels.max()) + 1, generator)
        self.fit_head(head, self.cache_features(body, probe, images), labels, generator)
        batches = (probe.normalize(images[drawn]) for drawn in self.draw(labels, generator))
        return self.average_squares(body, head, batches, generator)

    def cache_features(self, body: nn.Module, probe: PretrainedNetwork, images: Tensor) -> Tensor:
        """Features ``[N, F]`` of all images in their order, the body being in training mode."""
        with torch.no_grad():
            batches = images.split(self.batch_size)
            return torch.cat([body(channels_last(probe.normalize(batch))) for batch in batches])

    def draw(self, labels: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
        """Indices of one epoch, batch by batch ``[batch_size]``."""
        sizes = torch.bincount(labels)
        chosen = torch.multinomial(1 / sizes[labels], self.num_draws, replacement=True, generator=generator)
        full = self.num_draws // self.batch_size * self.batch_size
        return iter(chosen[:full].split(self.batch_size))

    def fit_head(self, head: nn.Linear, features: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        """Train the head on cached features."""
        adam = torch.optim.Adam(head.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        for _ in range(self.epochs):
            for drawn in self.draw(labels, generator):
                adam.zero_grad()
                functional.cross_entropy(head(features[drawn]), labels[drawn]).backward()
                adam.step()

    def average_squares(
        self, body: nn.Module, head: nn.Linear, batches: Iterator[Tensor], generator: torch.Generator
    ) -> Squares:
        """Mean over batches of squared gradients of a batch's mean loss, then over each filter's weights."""
        weights = [(name, value) for name, value in body.named_parameters() if name.endswith("weight")]
        sums = {name: torch.zeros_like(weight) for name, weight in weights}
        for images in batches:
            logits = head(body(channels_last(images)))
            drawn = torch.multinomial(logits.detach().softmax(dim=1), 1, generator=generator).squeeze(1)
            body.zero_grad()
            head.zero_grad()
            functional.cross_entropy(logits, drawn).backward()
            for name, weight in weights:
                sums[name] += weight.grad**2
        num_batches = self.num_draws // self.batch_size
        return {
            name.removesuffix(".weight"): values.reshape(len(values), -1).mean(dim=1) / num_batches
            for name, values in sums.items()
        }


def make_head(num_features: int, num_classes: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with the random weights that torch gives to one."""
    head = nn.Linear(num_features, num_classes)
    bound = num_features**-0.5
    for parameter in head.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return head


def channels_last(images: Tensor) -> Tensor:
    """The order of memory that convolutions on CPUs prefer; ours uses it too."""
    return images.contiguous(memory_format=torch.channels_last)
