"""Latency of a plain ViT as a function of the tokens in each layer, fitted on few measurements.

A layer on n tokens costs a term in n (projections, MLP) and one in n * n (attention); whatever is computed once (the
patches, the decoder, the label map) is constant; each cut costs the ranking and gathering of the tokens that it meets:

    t = a + b * sum over layers n + c * sum over layers n * n + o * sum over cuts n

None of the four can be negative. With fewer measurements than they are, what is not known stays near the guess that
the time follows the tokens (b alone), which is what the ridge holds on to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from edgeseg.errors import InputError
from edgeseg.token_plan import TokenPlan

RIDGE = 0.002
"""Weight of the guess, against relative errors of the measurements."""
_TERMS = 4


@dataclass(frozen=True)
class TokenStack:
    """What a plan cuts: the tokens of an encoder, and its layers."""

    tokens: int
    """That the encoder starts with, without the class token."""
    layers: int

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.layers < 1:
            raise InputError(f"an encoder has at least one token and one layer | got {self.tokens}, {self.layers}")

    def per_layer(self, plan: TokenPlan | None) -> np.ndarray:
        """Tokens that each layer computes, float64 `(layers,)`; None: all of them in all layers.

        Raises:
            InputError: the plan does not fit.
        """
        after = {} if plan is None else plan.counts(self.tokens, self.layers)
        running, counts = self.tokens, []
        for layer in range(1, self.layers + 1):
            counts.append(running)
            running = after.get(layer, running)
        return np.array(counts, np.float64)

    def running_share(self, plan: TokenPlan | None) -> float:
        """Mean over the layers of the share of the tokens that they compute."""
        return float(self.per_layer(plan).mean() / self.tokens)


@dataclass(frozen=True)
class LatencyModel:
    """The formula above with fitted coefficients, relative to the network whose tokens all go through."""

    stack: TokenStack
    whole_s: float
    """Latency of the whole network that the coefficients are relative to, in seconds."""
    coefficients: tuple[float, ...]
    """Of the constant, of n, of n * n, and of a cut, each as a share of `whole_s`; none is negative."""

    @classmethod
    def fit(cls, stack: TokenStack, measured_s: Mapping[TokenPlan | None, float]) -> "LatencyModel":
        """Least squares of the relative errors.

        Args:
            measured_s: plan -> latency in seconds; None, the whole network, is one of them.

        Raises:
            InputError: the whole network is missing, or a latency is not positive.
        """
        if None not in measured_s:
            raise InputError("a latency model needs the latency of the whole network | measure it first")
        if not all(0 < value < np.inf for value in measured_s.values()):
            raise InputError("a latency model needs positive latencies | measure again")
        whole_s = measured_s[None]
        ratios = np.array([value / whole_s for value in measured_s.values()])
        rows = np.array([_terms(stack, plan) for plan in measured_s]) / ratios[:, None]
        ridge = np.sqrt(RIDGE) * np.eye(_TERMS)
        guess = np.array([0.0, 1.0, 0.0, 0.0])
        design = np.vstack([rows, ridge])
        target = np.concatenate([np.ones(len(ratios)), ridge @ guess])
        return cls(stack, float(whole_s), tuple(float(value) for value in _not_negative(design, target)))

    def predict_s(self, plan: TokenPlan | None) -> float:
        """Latency in seconds with `plan`."""
        return self.whole_s * float(_terms(self.stack, plan) @ np.array(self.coefficients))


def _terms(stack: TokenStack, plan: TokenPlan | None) -> np.ndarray:
    """What the four coefficients multiply, each 1 for the whole network but the last, which is 0."""
    shares = stack.per_layer(plan) / stack.tokens
    # A cut ranks the tokens that still run: where few do it is cheap.
    met = 0.0 if plan is None else float(sum(shares[layer - 1] for layer, _ in plan.cuts))
    return np.array([1.0, shares.mean(), (shares**2).mean(), met])


def _not_negative(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares with coefficients that are not negative: the best over all sets of those that are not zero."""
    best, least = np.zeros(design.shape[1]), float(target @ target)
    for count in range(1, design.shape[1] + 1):
        for columns in map(list, combinations(range(design.shape[1]), count)):
            found = np.linalg.lstsq(design[:, columns], target, rcond=None)[0]
            error = float(((design[:, columns] @ found - target) ** 2).sum())
            if (found >= 0).all() and error < least:
                best, least = np.zeros(design.shape[1]), error
                best[columns] = found
    return best
