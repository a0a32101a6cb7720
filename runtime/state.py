"""Which buffers each step reads and writes: the state's way through the graphs of one configuration.

The plan follows the manifest's sequence and links alone. It knows neither what a state means nor what kind of network
it belongs to; two-frame networks, channel-wise masked ones and those of a user are the same to it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from edgeseg.bundle import BundleConfiguration, StateLink
from edgeseg.errors import ArtifactError


@dataclass(frozen=True, order=True)
class Slot:
    """One state buffer, named by the input that it feeds and the parity of the step that reads it.

    Two parities make the buffers ping-pong: a step never writes a buffer that it reads.
    """

    role: str
    input: str
    parity: int


@dataclass(frozen=True)
class StepPlan:
    """What one step runs, reads and writes."""

    role: str
    reads: tuple[tuple[str, Slot], ...]
    """(graph input, buffer) pairs."""
    writes: tuple[tuple[str, Slot], ...]
    """(graph output, buffer) pairs. A state output that the next step does not read is left out."""


class StatePlan:
    """The plans of all steps after a reset: a first part that is run once, then a period that repeats.

    Args:
        configuration: roles, sequence and links.

    Raises:
        ArtifactError: an input of a step is fed by two outputs of the step before.
    """

    def __init__(self, configuration: BundleConfiguration) -> None:
        self._configuration = configuration
        self._period = math.lcm(len(configuration.then), 2)
        # Step 1 follows the first role, step 1 + period the last of the sequence: so two periods are spelled out.
        self._plans = tuple(self._plan(step) for step in range(1 + 2 * self._period))

    def at(self, step: int) -> StepPlan:
        """Plan of the step that is `step` steps after a reset."""
        if step >= len(self._plans):
            step = 1 + self._period + (step - 1) % self._period
        return self._plans[step]

    @property
    def distinct(self) -> tuple[StepPlan, ...]:
        """Every plan that occurs, once."""
        return tuple(dict.fromkeys(self._plans))

    def _plan(self, step: int) -> StepPlan:
        before = self._configuration.role_at(step - 1) if step else None
        role, after = self._configuration.role_at(step), self._configuration.role_at(step + 1)
        incoming = _by_output(self._links(before, role)) if before else {}
        reads = [(name, Slot(role, names[0], step % 2)) for names in incoming.values() for name in names]
        if len({name for name, _ in reads}) != len(reads):
            raise ArtifactError(
                f"{self._configuration.name}: two outputs of {before} feed one input of {role} | export again"
            )
        writes = [
            (output, Slot(after, names[0], (step + 1) % 2))
            for output, names in _by_output(self._links(role, after)).items()
        ]
        return StepPlan(role, tuple(sorted(reads)), tuple(sorted(writes)))

    def _links(self, from_role: str, to_role: str) -> list[StateLink]:
        return [link for link in self._configuration.links if (link.from_role, link.to_role) == (from_role, to_role)]


def _by_output(links: Iterable[StateLink]) -> dict[str, list[str]]:
    """Output -> the inputs that it feeds, sorted: the first names the buffer that all of them share."""
    inputs: dict[str, list[str]] = {}
    for link in links:
        inputs.setdefault(link.output, []).append(link.input)
    return {output: sorted(names) for output, names in inputs.items()}
