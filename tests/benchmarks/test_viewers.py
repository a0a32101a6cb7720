"""The benchmark of the live view, at a size that tests can afford."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the live view needs aiohttp: install edgeseg[live]")

from benchmarks import viewers

_path = Path(__file__).parents[1] / "runtime" / "conftest.py"
_spec = importlib.util.spec_from_file_location("runtime_fixtures_of_the_viewers_benchmark", _path)
assert _spec is not None
assert _spec.loader is not None
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
bundle = _fixtures.bundle


def test_viewers_benchmark_compares_spans_with_and_without_viewers(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(viewers, "SETTLE_S", 0.3)
    options = ["--bundle", str(bundle.root), "--configuration", "plain_32x48", "--viewers", "8", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["viewers.py", *options, "--seconds", "1", "--out", str(tmp_path)])
    viewers.main()
    report = json.loads((tmp_path / "viewers.json").read_text())
    assert [row["what"] for row in report["rows"]] == ["age ms", "step ms"]
    assert set(report["samples_s"]) == {"age without", "age with", "step without", "step with"}
    assert all(report["samples_s"].values())
    assert report["facts"]["pictures per second and page"] > 0
    assert report["facts"]["readers that were cut"] == 0
