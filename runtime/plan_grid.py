"""The token plans that a search chooses from."""

from collections.abc import Iterator
from dataclasses import dataclass
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
        for option, values in (("--layers", self.layers), ("--proportions", self.proportions)):
            if not values or len(set(values)) != len(values):
                raise InputError(f"{option} names at least one value, each once | got {', '.join(map(str, values))}")
        if not 1 <= self.most_cuts <= len(self.layers):
            raise InputError(
                f"--max-layers lies between 1 and the number of --layers | got {self.most_cuts} of {len(self.layers)}"
            )
        for layer, proportion in product(self.layers, self.proportions):
            TokenPlan(((layer, proportion),)).counts(self.stack.tokens, self.stack.layers)

    @property
    def plans(self) -> tuple[TokenPlan | None, ...]:
        """All of them, fewer cuts first; the first one is None, the network whose tokens all go through."""
        return (None, *self._plans())

    @property
    def single_cuts(self) -> tuple[TokenPlan, ...]:
        """The plans of one cut."""
        return tuple(plan for plan in self._plans() if len(plan.cuts) == 1)

    def __len__(self) -> int:
        return len(self.plans)

    def __contains__(self, plan: object) -> bool:
        return plan in self.plans

    def _plans(self) -> Iterator[TokenPlan]:
        for count in range(1, self.most_cuts + 1):
            for layers in combinations(sorted(self.layers), count):
                for proportions in product(sorted(self.proportions), repeat=count):
                    yield TokenPlan(tuple(zip(layers, proportions, strict=True)))
