"""Logistic regression with an L2 penalty, solved in the span of the samples.

Axes: N samples, F features, R directions of the span, C classes.

A penalty ``||w||^2`` knows no direction, so the weights lie in the span of the samples, and features may be
rotated into it: at most N numbers a sample in place of F. In principal directions the curvature of the loss is
all but diagonal, so that Newton's method with conjugate gradients takes few steps, however long the tail of
small directions is that real features have. L-BFGS on features as they are took up to 15 times as long, and was
seen to stop with logits that were off by one.
"""

import contextlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

from indexer.errors import DataError

MAX_STEPS = 100
"""Of Newton's method, which takes ten from zero."""
MAX_SOLVER_STEPS = 500
"""Of conjugate gradients in each."""
DECREMENT = 1e-9
"""Decrease of the objective, in nats, that the last step may promise: after it logits are right to 1e-5."""
FORCING = 0.1
"""Largest residual of conjugate gradients, as a share of the first, in the norm of the preconditioner."""
SUFFICIENT = 1e-4
"""Of the decrease that the slope promises, what a step has to make."""
SMALLEST = 1e-14
"""Least share of the largest eigenvalue of the Gram matrix; of what is below only rounding is known."""


@dataclass(frozen=True, eq=False)
class Span:
    """Samples in orthogonal directions of their span.

    Attributes:
        coordinates: ``[N, R]``, R at most the smaller of N and F: the inputs are ``coordinates @ basis``.
    """

    coordinates: np.ndarray
    basis: np.ndarray  # ``[R, F]``, orthonormal rows


def span_of(inputs: np.ndarray) -> Span:
    """Rotate inputs ``[N, F]`` into their span, the directions of most variance last.

    The smaller Gram matrix is decomposed, which for N = 160 and F = 1280 takes a fifth of the time of a QR
    decomposition. It loses directions whose norm is below 1e-7 of the largest: no penalised fit has a weight
    there that would move a logit.
    """
    if len(inputs) >= inputs.shape[1]:
        squares, vectors = np.linalg.eigh(inputs.T @ inputs)
        basis = vectors[:, squares > SMALLEST * squares[-1]].T
        return Span(inputs @ basis.T, np.ascontiguousarray(basis))
    squares, vectors = np.linalg.eigh(inputs @ inputs.T)
    kept = squares > SMALLEST * squares[-1]
    norms = np.sqrt(squares[kept])
    return Span(vectors[:, kept] * norms, vectors[:, kept].T @ inputs / norms[:, None])


def fit_logistic(
    coordinates: np.ndarray, labels: np.ndarray, share: np.ndarray, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """Least weighted cross-entropy plus ``l2/2 * ||w||^2``, biases free.

    Of two classes there is one logit, that of class 1 against class 0, and ``w`` is its one row.

    Args:
        coordinates: ``[N, R]``, of a ``Span``.
        labels: ``[N]`` integers 0 to C-1, each present.
        share: ``[N]``, of sum 1: weights of the samples.
        l2: Positive.

    Returns:
        Weights ``[C, R]`` and biases ``[C]``, both of sum 0 over classes; one row if C is 2.

    Raises:
        DataError: If it does not converge.
    """
    num_classes = int(labels.max()) + 1
    problem = _Problem(
        np.column_stack([coordinates, np.ones(len(labels))]),
        np.eye(num_classes)[labels] if num_classes > 2 else labels[:, None].astype(np.float64),
        share[:, None],
        np.append(np.full(coordinates.shape[1], l2), 0.0),
    )
    table = np.zeros((problem.truth.shape[1], len(problem.penalty)))
    value, probabilities = problem.value(table)
    for _ in range(MAX_STEPS):
        step, decrement = problem.newton_step(table, probabilities)
        if not decrement > DECREMENT:
            break
        length, new = 1.0, problem.value(table + step)
        while new[0] > value - SUFFICIENT * length * decrement and length > SMALLEST:
            length /= 2
            new = problem.value(table + length * step)
        table = table + length * step
        value, probabilities = new
    if not decrement <= DECREMENT:
        raise DataError(
            "features", f"the head did not converge in {MAX_STEPS} steps; check the network's weights"
        )
    table += step
    if len(table) > 1:  # what is added to all logits changes nothing: the least weights add up to none
        table -= table.mean(axis=0)
    return table[:, :-1], table[:, -1]


@dataclass(frozen=True, eq=False)
class _Problem:
    """The objective of tables ``[K, R+1]``, the bias last; K is C, or 1 of two classes."""

    inputs: np.ndarray  # ``[N, R+1]``, the last column ones
    truth: np.ndarray  # ``[N, K]`` of 0 and 1
    share: np.ndarray  # ``[N, 1]``
    penalty: np.ndarray  # ``[R+1]``

    def value(self, table: np.ndarray) -> tuple[float, np.ndarray]:
        """The objective, and the probabilities ``[N, K]`` that the table foretells."""
        logits = self.inputs @ table.T
        if logits.shape[1] > 1:
            logits -= logits.max(axis=1, keepdims=True)
            probabilities = np.exp(logits)
            norms = probabilities.sum(axis=1, keepdims=True)
            losses = np.log(norms) - (self.truth * logits).sum(axis=1, keepdims=True)
            probabilities /= norms
        else:
            losses = np.logaddexp(0, logits) - self.truth * logits
            probabilities = np.exp(-np.logaddexp(0, -logits))
        return float((self.share * losses).sum() + (self.penalty * table**2).sum() / 2), probabilities

    def newton_step(self, table: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, float]:
        """The step ``[K, R+1]`` to the minimum of the quadratic model, and the decrease that it promises.

        Conjugate gradients, preconditioned by the diagonal, to a residual that falls with the slope.
        """
        weighted = self.share * probabilities
        residual = (self.share * self.truth - weighted).T @ self.inputs - self.penalty * table
        diagonal = (weighted * (1 - probabilities)).T @ self.inputs**2 + self.penalty
        inverse = 1 / np.maximum(diagonal, np.finfo(np.float64).tiny ** 0.5)
        slope = residual
        step, direction = np.zeros_like(table), inverse * residual
        product = start = float((residual * direction).sum())
        tolerance = max(min(FORCING, start**0.5) ** 2 * start, DECREMENT**2)
        for _ in range(MAX_SOLVER_STEPS):
            along = self._curvature(direction, probabilities, weighted)
            bend = float((direction * along).sum())
            if not (product > tolerance and bend > 0):
                break
            length = product / bend
            step = step + length * direction
            residual = residual - length * along
            scaled = inverse * residual
            before, product = product, float((residual * scaled).sum())
            direction = scaled + product / before * direction
        return step, float((slope * step).sum())

    def _curvature(self, direction: np.ndarray, probabilities: np.ndarray, weighted: np.ndarray) -> np.ndarray:
        """The second derivative of the objective times a direction."""
        change = self.inputs @ direction.T
        if change.shape[1] > 1:
            change -= (probabilities * change).sum(axis=1, keepdims=True)
            change *= weighted
        else:
            change *= weighted * (1 - probabilities)
        return np.asarray(change.T @ self.inputs + self.penalty * direction)


def one_thread() -> contextlib.AbstractContextManager[None]:
    """Keep BLAS on one thread."""
    limit: contextlib.AbstractContextManager[None] = _libraries().limit(limits=1, user_api="blas")
    return limit


@cache
def _libraries() -> ThreadpoolController:
    """The BLAS libraries of this process; to find them takes 20 ms, more than a small fit."""
    return ThreadpoolController()
