"""What attributes of experts say of their standing: weights learned from results, beside strong assumptions.

The standing of expert e in a row of protocol p is ``x_e (w + w_p)`` and what is its own: a Gaussian process
over its rows. So the weights have a Gaussian posterior in closed form. A protocol has its own deviations
``w_p``, so that a thousand networks compared on ImageNet do not settle what linear probes want. Here a protocol
is one of the registry or of one published benchmark (``Rows.groups``): its numbers there are of few networks
and of data of one kind.

Axes: R rows, M experts, F features, P protocols, F' features of which protocols differ, D weights.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from registry.recommend.facts import IMAGENET_ACCURACY, Features
from registry.recommend.gaussian_process import Pattern

PROTOCOL_SHARE = 0.5
"""Variance of a protocol's own deviation of a weight, in units of the variance of the weight."""
GROUP_PSEUDO_WEIGHTS = 6.0
"""How many weights the assumed sd of a group counts for, beside those that were learned."""
ACCURACY_SHARE = 1.5
"""The same of the weight of ImageNet's accuracy: results on ImageNet itself say nothing of it elsewhere."""
MIN_PROTOCOL_EXPERTS = 8
"""Fewer experts in a protocol say nothing of how it differs."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Posterior of the weights.

    Attributes:
        features: Of all experts.
        mean: ``[D]``: the shared weights ``[F]``, then the deviations ``[F']`` of each protocol that has its
        own.
        covariance: ``[D, D]``.
        place: Where the deviations of a protocol start; protocols without their own are not there.
    """

    features: Features
    mean: np.ndarray
    covariance: np.ndarray
    place: dict[int, int]

    def of_protocol(self, protocol: int) -> np.ndarray:
        """Standing ``[M]`` that attributes give in a protocol."""
        x, own = self.features.values, self.features.own_values
        standing = x @ self.mean[: x.shape[1]]
        start = self.place.get(protocol)
        if start is not None:
            standing = standing + own @ self.mean[start : start + own.shape[1]]
        return np.asarray(standing)

    def rows(self, protocols: np.ndarray) -> np.ndarray:
        """``[R, M]`` the same for the protocol ``[R]`` of each row."""
        table = {protocol: self.of_protocol(protocol) for protocol in np.unique(protocols).tolist()}
        tables = [table[protocol] for protocol in protocols.tolist()]
        return np.stack(tables) if tables else np.zeros((0, len(self.features.values)))

    def uncertainty(self) -> np.ndarray:
        """Variance ``[M]`` of the standing that attributes give, whatever the protocol."""
        x = self.features.values
        among = self.covariance[: x.shape[1], : x.shape[1]]
        return np.asarray(((x @ among) * x).sum(axis=1))

    def loadings(self, protocol: int, known: np.ndarray, known_here: np.ndarray) -> np.ndarray:
        """Square root ``[M, K]`` of the covariance that errors of weights give standings in a protocol.

        Args:
            protocol: The one asked about.
            known: ``[M]`` share of the shared part that the expert's own results replace.
            known_here: ``[M]`` share of the protocol's part that they replace.
        """
        x, own = self.features.values, self.features.own_values
        start = self.place.get(protocol)
        design, chosen = x * (1 - known)[:, None], np.arange(x.shape[1])
        if start is not None:
            design = np.hstack([design, own * (1 - known_here)[:, None]])
            chosen = np.r_[chosen, start : start + own.shape[1]]
        among = self.covariance[np.ix_(chosen, chosen)]
        loadings = design @ np.linalg.cholesky(among + 1e-9 * np.eye(len(among)))
        if start is None:  # a protocol of which nothing is known deviates as any does
            deviation = self.features.sd[self.features.own] * np.sqrt(_shares(self.features))
            loadings = np.hstack([loadings, own * deviation])
        return np.asarray(loadings)


@dataclass(frozen=True, eq=False)
class WeightSolver:
    """Least squares of weights from the values of rows; what does not depend on values is computed once.

    Attributes:
        features: Of the experts.
        patterns: Columns by the rows in which they are known.
        inverses: ``[n, n]`` of the covariance of its rows, of each pattern.
        sides: ``[n, 1 + P']`` which protocols with own deviations a row has, the shared weights first.
        protocols: The P' protocols of each pattern.
        place: Where the deviations of a protocol start.
        precision: ``[D, D]`` of the results alone.
    """

    features: Features
    patterns: list[Pattern]
    inverses: list[np.ndarray]
    sides: list[np.ndarray]
    protocols: list[list[int]]
    place: dict[int, int]
    precision: np.ndarray

    @classmethod
    def of(
        cls, features: Features, patterns: list[Pattern], covariance: np.ndarray, protocols: np.ndarray
    ) -> "WeightSolver":
        """From the covariance ``[R, R]`` of the rows of an expert and the protocol ``[R]`` of each row."""
        counted: Counter[int] = Counter()
        for pattern in patterns:
            for protocol in np.unique(protocols[pattern.rows]).tolist():
                counted[protocol] += len(pattern.columns)
        kept = sorted(protocol for protocol, count in counted.items() if count >= MIN_PROTOCOL_EXPERTS)
        size, step = features.values.shape[1], features.own_values.shape[1]
        place = {protocol: size + step * number for number, protocol in enumerate(kept)}
        inverses = [np.linalg.inv(covariance[np.ix_(it.rows, it.rows)]) for it in patterns]
        here = [[p for p in np.unique(protocols[it.rows]).tolist() if p in place] for it in patterns]
        sides = [
            np.stack([np.ones(len(it.rows)), *(protocols[it.rows] == p for p in some)], axis=1)
            for it, some in zip(patterns, here, strict=True)
        ]
        empty = np.zeros((size + step * len(kept),) * 2)
        solver = cls(features, patterns, inverses, sides, here, place, empty)
        return replace(solver, precision=solver._precision())

    def _blocks(self, number: int) -> list[tuple[slice, np.ndarray]]:
        """Where the weights of a pattern are, and what they are multiplied by ``[k, F or F']``."""
        columns = self.patterns[number].columns
        x, own = self.features.values[columns], self.features.own_values[columns]
        starts = [self.place[protocol] for protocol in self.protocols[number]]
        return [(slice(0, x.shape[1]), x), *((slice(it, it + own.shape[1]), own) for it in starts)]

    def _precision(self) -> np.ndarray:
        precision = self.precision.copy()
        for number, (inverse, side) in enumerate(zip(self.inverses, self.sides, strict=True)):
            blocks, mixed = self._blocks(number), side.T @ inverse @ side
            for i, (first, left) in enumerate(blocks):
                for j, (second, right) in enumerate(blocks):
                    precision[first, second] += mixed[i, j] * (left.T @ right)
        return precision

    def assumed(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance ``[D]`` of the weights before any result."""
        deviations = _shares(self.features) * self.features.sd[self.features.own] ** 2
        variance = np.concatenate([self.features.sd**2, np.tile(deviations, len(self.place))])
        mean = np.zeros(len(variance))
        mean[: len(self.features.mean)] = self.features.mean
        return mean, variance

    def covariance(self) -> np.ndarray:
        """``[D, D]`` of the weights, given the results; the same whatever their values."""
        return np.linalg.inv(self.precision + np.diag(1 / self.assumed()[1]))

    def solve(self, values: np.ndarray, covariance: np.ndarray) -> Weights:
        """Posterior of the weights, given values ``[R, M]`` of the rows and what ``covariance`` gave."""
        mean, variance = self.assumed()
        right = mean / variance
        for number, (pattern, inverse, side) in enumerate(
            zip(self.patterns, self.inverses, self.sides, strict=True)
        ):
            moved = (side.T @ inverse) @ values[np.ix_(pattern.rows, pattern.columns)]
            for row, (block, x) in zip(moved, self._blocks(number), strict=True):
                right[block] += row @ x
        return Weights(self.features, covariance @ right, covariance, self.place)

    def learned(self, weights: Weights) -> "WeightSolver":
        """The same with the sd of every group of weights moved to what these weights show."""
        size = self.features.values.shape[1]
        off = weights.mean[:size] - self.features.mean
        squares = off**2 + np.diag(weights.covariance)[:size]
        sd = self.features.sd.copy()
        for group in np.unique(self.features.group):
            members = self.features.group == group
            assumed = GROUP_PSEUDO_WEIGHTS * sd[members] ** 2
            sd[members] = np.sqrt((assumed + squares[members].sum()) / (GROUP_PSEUDO_WEIGHTS + members.sum()))
        return replace(self, features=replace(self.features, sd=sd))

    def told(self, weights: Weights, number: int, place: int) -> tuple[np.ndarray, np.ndarray]:
        """What weights say of one column of a pattern: mean ``[n]`` and covariance ``[n, n]`` over its rows."""
        blocks = [(block, x[place]) for block, x in self._blocks(number)]
        mean = np.array([x @ weights.mean[block] for block, x in blocks])
        among = [[x @ weights.covariance[i, j] @ y for j, y in blocks] for i, x in blocks]
        side = self.sides[number]
        return side @ mean, side @ np.array(among) @ side.T


def _shares(features: Features) -> np.ndarray:
    """Variance ``[F']`` of a protocol's deviation of each weight, in units of the variance of the weight."""
    return np.where(features.own == IMAGENET_ACCURACY, ACCURACY_SHARE, PROTOCOL_SHARE)
