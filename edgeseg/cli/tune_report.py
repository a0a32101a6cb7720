"""What `edgeseg tune` prints of the plans that it measured and the one that it picked."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeseg.export.tuning import CheckpointBench
    from edgeseg.runtime.pick import Pick
    from edgeseg.runtime.plan_grid import PlanGrid
    from edgeseg.runtime.plan_search import SearchResult, Trial


def tuning_values(
    result: "SearchResult", picked: "Pick", front: list[str], bench: "CheckpointBench", grid: "PlanGrid"
) -> dict[str, Any]:
    """JSON-ready: what was searched and measured, the front and the pick.

    Args:
        front: configurations of the Pareto front, fastest first.
    """
    model = result.model
    return {
        "search": {
            "name": result.search,
            "grid_plans": len(grid),
            "measurements": len(result.trials),
            "scored": result.scored,
            "stopped": result.stopped,
            "latency_model": dict(
                zip(("constant", "tokens", "tokens_squared", "cuts"), model.coefficients, strict=True)
            )
            | {"whole_ms": 1e3 * model.whole_s, "prediction_errors": list(result.prediction_errors)},
            "trials": [_trial(trial, bench) for trial in result.trials],
        },
        "front": front,
        **picked.as_dict(),
    }


def print_tuning(result: "SearchResult", picked: "Pick", front: list[str], grid: "PlanGrid") -> None:
    """Print the pick's table, the front, and how much of the grid was measured and how well the rest was predicted."""
    from edgeseg.cli.tables import print_pick

    print_pick(picked)
    click.echo(f"Pareto front of latency and mIoU, fastest first: {', '.join(front)}")
    errors = sorted(abs(error) for error in result.prediction_errors)
    predicted = (
        f"; latencies predicted before they were measured were off by {100 * errors[len(errors) // 2]:.1f} % (median), "
        f"{100 * errors[-1]:.1f} % at most"
        if errors
        else ""
    )
    click.echo(
        f"{result.search} search: {len(result.trials)} of {len(grid)} plans measured, accuracy of {result.scored} "
        f"ranked; {result.stopped}{predicted}"
    )


def _trial(trial: "Trial", bench: "CheckpointBench") -> dict[str, Any]:
    return {
        "plan": None if trial.plan is None else str(trial.plan),
        "p50_ms": 1e3 * trial.median_s,
        "predicted_ms": None if trial.predicted_s is None else 1e3 * trial.predicted_s,
        "miou": trial.miou,
        "lamiou": trial.lamiou,
        "compensation": bench.ways[trial.way].name,
    }
