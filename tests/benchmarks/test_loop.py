"""The benchmark of the loop, at a size that tests can afford."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from benchmarks import loop

_path = Path(__file__).parents[1] / "runtime" / "conftest.py"
_spec = importlib.util.spec_from_file_location("runtime_fixtures_of_the_loop_benchmark", _path)
assert _spec is not None
assert _spec.loader is not None
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
bundle = _fixtures.bundle


@pytest.fixture
def report(bundle, tmp_path, monkeypatch):
    """What the benchmark wrote about a stateless and a stateful configuration."""
    monkeypatch.setattr(loop, "LEAK_STEPS", 40)
    monkeypatch.setattr(loop, "LEAK_WARM_UP", 10)
    names = ["plain_32x48", "phases_32x48_rho0-concat"]
    chosen = [argument for name in names for argument in ("--configuration", name)]
    options = ["--bundle", str(bundle.root), "--rounds", "2", "--frames", "3", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["loop.py", *options, *chosen])
    loop.main()
    return json.loads((tmp_path / "loop.json").read_text())


def test_loop_benchmark_compares_with_the_engine_or_the_step(report):
    assert [sorted(key for key in row if key in ("engine ms", "step ms")) for row in report["rows"]] == [
        ["engine ms", "step ms"],
        ["step ms"],
    ]
    assert {name: len(values) for name, values in report["samples_s"].items()} == {
        "plain_32x48 step": 2,
        "plain_32x48 loop": 2,
        "plain_32x48 engine": 2,
        "phases_32x48_rho0-concat step": 2,
        "phases_32x48_rho0-concat loop": 2,
    }


def test_loop_benchmark_reports_memory_over_many_steps(report):
    assert "over 40 steps" in report["facts"]["memory_growth_mb"]
