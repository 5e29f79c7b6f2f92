"""What attributes of experts say of their standing: weights learned from results, beside strong assumptions.

The standing of expert e in a row of protocol p is ``x_e (w + w_p)`` and what is its own: a Gaussian process over
its rows. So the weights have a Gaussian posterior in closed form. A protocol has its own deviations ``w_p``, so
that a thousand networks compared on ImageNet do not settle what linear probes want.

Axes: R rows, M experts, F features, P protocols, D weights.
"""

from dataclasses import dataclass, replace

import numpy as np

from registry.advising.attributes import Features
from registry.advising.gaussian_process import Pattern

PROTOCOL_SHARE = 0.5
"""Variance of a protocol's own deviation of a weight, in units of the variance of the weight."""
GROUP_PSEUDO_WEIGHTS = 6.0
"""How many weights the assumed sd of a group counts for, beside those that were learned."""
MIN_PROTOCOL_EXPERTS = 8
"""Fewer experts in a protocol say nothing of how it differs."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Posterior of the weights.

    Attributes:
        features: Of all experts.
        mean: ``[D]``: the shared weights ``[F]``, then those of each protocol that has its own.
        covariance: ``[D, D]``.
        place: Where the weights of a protocol start; protocols without their own are not there.
    """

    features: Features
    mean: np.ndarray
    covariance: np.ndarray
    place: dict[int, int]

    def of_protocol(self, protocol: int) -> np.ndarray:
        """Standing ``[M]`` that attributes give in a protocol."""
        size = self.features.values.shape[1]
        start = self.place.get(protocol)
        weights = self.mean[:size] + (0 if start is None else self.mean[start : start + size])
        return np.asarray(self.features.values @ weights)

    def rows(self, protocols: np.ndarray) -> np.ndarray:
        """``[R, M]`` the same for the protocol ``[R]`` of each row."""
        table = {protocol: self.of_protocol(protocol) for protocol in np.unique(protocols).tolist()}
        return np.stack([table[protocol] for protocol in protocols.tolist()]) if len(protocols) else np.zeros(
            (0, len(self.features.values))
        )

    def uncertainty(self) -> np.ndarray:
        """Variance ``[M]`` of the standing that attributes give, whatever the protocol."""
        size = self.features.values.shape[1]
        x = self.features.values
        return np.asarray(((x @ self.covariance[:size, :size]) * x).sum(axis=1))

    def loadings(self, protocol: int, known: np.ndarray, known_here: np.ndarray) -> np.ndarray:
        """Square root ``[M, K]`` of the covariance that errors of weights give standings in a protocol.

        Args:
            protocol: The one asked about.
            known: ``[M]`` share of the shared part that the expert's own results replace.
            known_here: ``[M]`` share of the protocol's part that they replace.
        """
        size = self.features.values.shape[1]
        start = self.place.get(protocol)
        chosen = np.arange(size) if start is None else np.r_[np.arange(size), start : start + size]
        x = self.features.values
        design = x * (1 - known)[:, None]
        if start is not None:
            design = np.hstack([design, x * (1 - known_here)[:, None]])
        among = self.covariance[np.ix_(chosen, chosen)]
        factor = np.linalg.cholesky(among + 1e-9 * np.eye(len(among)))
        loadings = design @ factor
        if start is None:  # a protocol of which nothing is known deviates as any does
            loadings = np.hstack([loadings, x * (self.features.sd * np.sqrt(PROTOCOL_SHARE))])
        return np.asarray(loadings)


@dataclass(frozen=True, eq=False)
class WeightSolver:
    """Least squares of weights from the values of rows; what does not depend on values is computed once."""

    features: Features
    patterns: list[Pattern]
    inverses: list[np.ndarray]  # of the rows' covariance, by pattern
    sides: list[np.ndarray]  # [n, 1 + P'] which weights a row has, by pattern
    blocks: list[np.ndarray]  # [1 + P'] where these start
    place: dict[int, int]
    precision: np.ndarray  # [D, D] of the results alone

    @classmethod
    def of(
        cls, features: Features, patterns: list[Pattern], covariance: np.ndarray, protocols: np.ndarray
    ) -> "WeightSolver":
        """From the covariance ``[R, R]`` of the rows of an expert and the protocol ``[R]`` of each row."""
        size = features.values.shape[1]
        counted: dict[int, int] = {}
        for pattern in patterns:
            for protocol in np.unique(protocols[pattern.rows]).tolist():
                counted[protocol] = counted.get(protocol, 0) + len(pattern.columns)
        own = sorted(protocol for protocol, count in counted.items() if count >= MIN_PROTOCOL_EXPERTS)
        place = {protocol: size * (1 + number) for number, protocol in enumerate(own)}
        precision = np.zeros((size * (1 + len(own)),) * 2)
        inverses, sides, blocks = [], [], []
        for pattern in patterns:
            inverse = np.linalg.inv(covariance[np.ix_(pattern.rows, pattern.rows)])
            here = [it for it in np.unique(protocols[pattern.rows]).tolist() if it in place]
            side = np.stack(
                [np.ones(len(pattern.rows)), *(protocols[pattern.rows] == it for it in here)], axis=1
            )
            starts = np.array([0, *(place[it] for it in here)])
            x = features.values[pattern.columns]
            gram, mixed = x.T @ x, side.T @ inverse @ side
            for i, first in enumerate(starts):
                for j, second in enumerate(starts):
                    precision[first : first + size, second : second + size] += mixed[i, j] * gram
            inverses.append(inverse)
            sides.append(side)
            blocks.append(starts)
        return cls(features, patterns, inverses, sides, blocks, place, precision)

    def solve(self, values: np.ndarray) -> Weights:
        """Posterior of the weights, given values ``[R, M]`` of the rows."""
        size = self.features.values.shape[1]
        shared = self.features
        right = np.zeros(len(self.precision))
        for pattern, inverse, side, starts in zip(
            self.patterns, self.inverses, self.sides, self.blocks, strict=True
        ):
            moved = side.T @ inverse @ values[np.ix_(pattern.rows, pattern.columns)]
            parts = moved @ shared.values[pattern.columns]
            for start, part in zip(starts, parts, strict=True):
                right[start : start + size] += part
        variance = np.concatenate([shared.sd**2, *([PROTOCOL_SHARE * shared.sd**2] * len(self.place))])
        mean = np.concatenate([shared.mean, np.zeros(size * len(self.place))])
        covariance = np.linalg.inv(self.precision + np.diag(1 / variance))
        return Weights(shared, covariance @ (right + mean / variance), covariance, self.place)

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
