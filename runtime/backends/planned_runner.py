"""What the runners share that run one graph per step and hand the state on by a `StatePlan`."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from edgeseg.bundle import BundleConfiguration
from edgeseg.errors import DeviceError, EdgesegError, one_line
from edgeseg.runtime.backends.base import Runner
from edgeseg.runtime.state import StatePlan, StepPlan


class PlannedRunner(Runner):
    """Counts the steps since the last reset and runs each by its plan. `activate_impl` calls `_follow`."""

    failures: ClassVar[tuple[type[Exception], ...]] = (Exception,)
    """What a failing library raises in a step, and the caller is told as a DeviceError."""

    def __init__(self, root: Path, configuration: BundleConfiguration, device: str, threads: int) -> None:
        super().__init__(root, configuration, device, threads)
        self._plan: StatePlan
        self._step = 0

    @abstractmethod
    def _run(self, plan: StepPlan) -> None:
        """From the image buffer to the labels buffer, and the state one step on."""

    def _follow(self, plan: StatePlan) -> None:
        """Run by `plan` from now on, from its first step."""
        self._plan, self._step = plan, 0

    def infer_impl(self) -> None:
        plan = self._plan.at(self._step)
        try:
            self._run(plan)
        except self.failures as error:
            said = error if isinstance(error, EdgesegError) else one_line(error)
            raise DeviceError(
                f"{self.configuration.name}: graph {plan.role} failed on {self.device} | {said}"
            ) from error
        self._step += 1

    def reset_impl(self) -> None:
        # The first step reads no state, and each later one what the step before it wrote.
        self._step = 0
