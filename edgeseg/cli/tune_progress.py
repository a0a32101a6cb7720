"""How far `edgeseg tune` is, in lines on standard error, where there is no terminal for a bar."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np

    from edgeseg.runtime.plan_search import Workbench
    from edgeseg.token_plan import TokenPlan


class ToldBench:
    """A `edgeseg.runtime.plan_search.Workbench` that says what each plan was found to take and to be worth.

    Args:
        most: measurements of the search at most.
    """

    def __init__(self, bench: "Workbench", most: int) -> None:
        self._bench, self._most = bench, most
        self._measured = 0

    def latencies_s(self, plan: "TokenPlan | None") -> Any:
        import numpy as np

        found = self._bench.latencies_s(plan)
        self._measured += 1
        _say(
            f"measured {_name(plan)}: {1e3 * float(np.median(found)):.1f} ms ({self._measured} of at most {self._most})"
        )
        return found

    def tables(self, plan: "TokenPlan | None") -> "np.ndarray":
        found = self._bench.tables(plan)
        _say(f"scored {_name(plan)}: mIoU {found[0, 0]:.3f}")
        return found


def _name(plan: "TokenPlan | None") -> str:
    return "the whole network" if plan is None else f"plan {plan}"


def _say(text: str) -> None:
    click.echo(text, err=True)
