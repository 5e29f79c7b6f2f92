"""What attributes of experts say of their standing: weights learned from results, beside strong assumptions.

The standing of expert e in a row of protocol p and benchmark b is ``x_e (w + w_p + w_pb)`` and what is its
own: a Gaussian process over its rows. So the weights have a Gaussian posterior in closed form. A protocol has
its own deviations ``w_p``, so that a thousand networks compared on ImageNet do not settle what linear probes
want, and in each benchmark deviations ``w_pb`` from these, for published numbers are of few networks and of
data of one kind. A *side* is a number that stands for p, or for p and b: ``Rows.sides``.

Axes: R rows, M experts, F features, P sides, F' features of which sides differ, D weights.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from registry.recommend.facts import IMAGENET_ACCURACY, Features
from registry.recommend.gaussian_process import Pattern

PROTOCOL_SHARE = 0.25
"""Variance of a side's own deviation of a weight, in units of the variance of the weight."""
GROUP_PSEUDO_WEIGHTS = 6.0
"""How many weights the assumed sd of a group counts for, beside those that were learned."""
ACCURACY_SHARE = 0.75
"""The same of the weight of ImageNet's accuracy: results on ImageNet itself say nothing of it elsewhere."""
MIN_PROTOCOL_EXPERTS = 8
"""Fewer experts on a side say nothing of how it differs."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Posterior of the weights.

    Attributes:
        features: Of all experts.
        mean: ``[D]``: the shared weights ``[F]``, then the deviations ``[F']`` of each side that has its own.
        covariance: ``[D, D]``.
        place: Where the deviations of a side start; sides without their own are not there.
    """

    features: Features
    mean: np.ndarray
    covariance: np.ndarray
    place: dict[int, int]

    def of_sides(self, sides: tuple[int, ...]) -> np.ndarray:
        """Standing ``[M]`` that attributes give in rows of some sides."""
        x, own = self.features.values, self.features.own_values
        standing = x @ self.mean[: x.shape[1]]
        for start in (self.place[side] for side in sides if side in self.place):
            standing = standing + own @ self.mean[start : start + own.shape[1]]
        return np.asarray(standing)

    def rows(self, sides: np.ndarray) -> np.ndarray:
        """``[R, M]`` the same for the sides ``[R, 2]`` of each row."""
        pairs = [tuple(row) for row in sides.tolist()]
        table = {pair: self.of_sides(pair) for pair in set(pairs)}
        return np.stack([table[pair] for pair in pairs]) if pairs else np.zeros((0, len(self.features.values)))

    def uncertainty(self) -> np.ndarray:
        """Variance ``[M]`` of the standing that attributes give, whatever the protocol."""
        x = self.features.values
        among = self.covariance[: x.shape[1], : x.shape[1]]
        return np.asarray(((x @ among) * x).sum(axis=1))

    def loadings(self, sides: tuple[int, ...], known: np.ndarray, known_here: np.ndarray) -> np.ndarray:
        """Square root ``[M, K]`` of the covariance that errors of weights give standings in rows of some sides.

        Args:
            sides: Those asked about.
            known: ``[M]`` share of the shared part that the expert's own results replace.
            known_here: ``[M]`` share of the part of the sides that they replace.
        """
        x, own = self.features.values, self.features.own_values
        starts = [self.place[side] for side in sides if side in self.place]
        design = np.hstack([x * (1 - known)[:, None], *(own * (1 - known_here)[:, None] for _ in starts)])
        chosen = np.r_[np.arange(x.shape[1]), *(np.arange(it, it + own.shape[1]) for it in starts)]
        among = self.covariance[np.ix_(chosen, chosen)]
        loadings = design @ np.linalg.cholesky(among + 1e-9 * np.eye(len(among)))
        # A side of which nothing is known deviates as any does.
        deviation = self.features.sd[self.features.own] * np.sqrt(_shares(self.features))
        return np.hstack([loadings, *(own * deviation for _ in range(len(sides) - len(starts)))])


@dataclass(frozen=True, eq=False)
class WeightSolver:
    """Least squares of weights from the values of rows; what does not depend on values is computed once.

    Attributes:
        features: Of the experts.
        patterns: Columns by the rows in which they are known.
        inverses: ``[n, n]`` of the covariance of its rows, of each pattern.
        masks: ``[n, 1 + P']`` on which sides with own deviations a row is, the shared weights first.
        sides: The P' sides of each pattern.
        place: Where the deviations of a side start.
        precision: ``[D, D]`` of the results alone.
    """

    features: Features
    patterns: list[Pattern]
    inverses: list[np.ndarray]
    masks: list[np.ndarray]
    sides: list[list[int]]
    place: dict[int, int]
    precision: np.ndarray

    @classmethod
    def of(
        cls, features: Features, patterns: list[Pattern], covariance: np.ndarray, sides: np.ndarray
    ) -> "WeightSolver":
        """From the covariance ``[R, R]`` of the rows of an expert and the sides ``[R, 2]`` of each row."""
        counted: Counter[int] = Counter()
        for pattern in patterns:
            for side in np.unique(sides[pattern.rows]).tolist():
                counted[side] += len(pattern.columns)
        kept = sorted(side for side, count in counted.items() if count >= MIN_PROTOCOL_EXPERTS)
        size, step = features.values.shape[1], features.own_values.shape[1]
        place = {side: size + step * number for number, side in enumerate(kept)}
        inverses = [np.linalg.inv(covariance[np.ix_(it.rows, it.rows)]) for it in patterns]
        here = [[side for side in np.unique(sides[it.rows]).tolist() if side in place] for it in patterns]
        masks = [
            np.stack([np.ones(len(it.rows)), *((sides[it.rows] == side).any(axis=1) for side in some)], axis=1)
            for it, some in zip(patterns, here, strict=True)
        ]
        empty = np.zeros((size + step * len(kept),) * 2)
        solver = cls(features, patterns, inverses, masks, here, place, empty)
        return replace(solver, precision=solver._precision())

    def _blocks(self, number: int) -> list[tuple[slice, np.ndarray]]:
        """Where the weights of a pattern are, and what they are multiplied by ``[k, F or F']``."""
        columns = self.patterns[number].columns
        x, own = self.features.values[columns], self.features.own_values[columns]
        starts = [self.place[side] for side in self.sides[number]]
        return [(slice(0, x.shape[1]), x), *((slice(it, it + own.shape[1]), own) for it in starts)]

    def _precision(self) -> np.ndarray:
        precision = self.precision.copy()
        for number, (inverse, mask) in enumerate(zip(self.inverses, self.masks, strict=True)):
            blocks, mixed = self._blocks(number), mask.T @ inverse @ mask
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
        for number, (pattern, inverse, mask) in enumerate(
            zip(self.patterns, self.inverses, self.masks, strict=True)
        ):
            moved = (mask.T @ inverse) @ values[np.ix_(pattern.rows, pattern.columns)]
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
        mask = self.masks[number]
        return mask @ mean, mask @ np.array(among) @ mask.T


def _shares(features: Features) -> np.ndarray:
    """Variance ``[F']`` of a side's deviation of each weight, in units of the variance of the weight."""
    return np.where(features.own == IMAGENET_ACCURACY, ACCURACY_SHARE, PROTOCOL_SHARE)
