"""The token plans that a search chooses from."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product

from edgeseg.errors import InputError
from edgeseg.runtime.latency_model import TokenStack
from edgeseg.token_plan import TokenPlan


@dataclass(frozen=True)
class PlanGrid:
    """The plans to choose from: up to `most_cuts` cuts after different `layers`, each by one of `proportions`."""

    layers: tuple[int, ...]
    proportions: tuple[float, ...]
    most_cuts: int
    stack: TokenStack

    def __post_init__(self) -> None:
        if not self.layers:
            raise InputError("--layers names no layer | of a range the lower one comes first, as in 3-7")
        for option, values in (("--layers", self.layers), ("--proportions", self.proportions)):
            if not values or len(set(values)) != len(values):
                raise InputError(f"{option} names at least one value, each once | got {', '.join(map(str, values))}")
        if not 1 <= self.most_cuts <= len(self.layers):
            raise InputError(
                f"--max-layers lies between 1 and the number of --layers | got {self.most_cuts} of {len(self.layers)}"
            )
        tokens = self.stack.tokens
        for proportion in self.proportions:
            if not 0 < proportion < 1:
                raise InputError(
                    f"--proportions: proportion out of range | got {proportion:g}, expected more than 0 and less than 1"
                )
            if int(proportion * tokens) == 0:
                raise InputError(
                    f"--proportions: {proportion:g} stops none of {tokens} tokens | use one above 1/{tokens}"
                )
        for layer, proportion in product(self.layers, self.proportions):
            TokenPlan(((layer, proportion),)).counts(tokens, self.stack.layers)

    @property
    def plans(self) -> tuple[TokenPlan | None, ...]:
        """All of them, fewer cuts first; the first one is None, the network whose tokens all go through.

        Plans of which as many tokens go on everywhere are one graph under several names: the first one stands for all.
        """
        return tuple(self._by_counts.values())

    @property
    def single_cuts(self) -> tuple[TokenPlan, ...]:
        """The plans of one cut."""
        return tuple(plan for plan in self.plans if plan is not None and len(plan.cuts) == 1)

    def same_as(self, plan: TokenPlan | None) -> TokenPlan | None:
        """The one of `plans` by which as many tokens go on everywhere as by `plan`.

        Raises:
            InputError: the grid has none.
        """
        counts = tuple(self.stack.per_layer(plan))
        if counts not in self._by_counts:
            raise InputError(f"plan {plan} is not in the grid | choose one of its layers and proportions")
        return self._by_counts[counts]

    def __len__(self) -> int:
        return len(self.plans)

    @cached_property
    def _by_counts(self) -> dict[tuple[float, ...], TokenPlan | None]:
        """The tokens that each layer computes -> the first plan with these."""
        plans: dict[tuple[float, ...], TokenPlan | None] = {}
        for plan in (None, *self._combinations()):
            plans.setdefault(tuple(self.stack.per_layer(plan)), plan)
        return plans

    def _combinations(self) -> Iterator[TokenPlan]:
        for count in range(1, self.most_cuts + 1):
            for layers in combinations(sorted(self.layers), count):
                for proportions in product(sorted(self.proportions), repeat=count):
                    yield TokenPlan(tuple(zip(layers, proportions, strict=True)))
