"""Shared benchmark plumbing."""

import json
from pathlib import Path

import pytest

from benchmarks.measure import (
    interleave,
    machine_facts,
    markdown_table,
    report_parser,
    summary_ms,
    users_errors,
    write_report,
)
from edgeseg.errors import InputError


def test_interleave_takes_turns_and_drops_warmup() -> None:
    calls: list[str] = []
    ticks = iter(range(1000))
    seconds = interleave(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warmup=1, clock=lambda: next(ticks)
    )
    assert calls == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert seconds == {"a": [1, 1, 1], "b": [1, 1, 1]}


def test_interleave_leaves_settling_calls_out_of_the_times() -> None:
    calls: list[str] = []
    seconds = interleave(
        {"a": lambda: calls.append("a")}, rounds=2, warmup=0, settle_calls=2, clock=lambda: float(len(calls))
    )
    assert calls == ["a"] * 6
    assert seconds == {"a": [1.0, 1.0]}


def test_interleave_refuses_when_there_is_no_round() -> None:
    with pytest.raises(ValueError, match="nothing to measure"):
        interleave({"a": lambda: None}, rounds=0, warmup=1)


def test_summary_keeps_the_slow_tail() -> None:
    assert summary_ms([0.001] * 9 + [0.010]) == {"min_ms": 1.0, "median_ms": 1.0, "p90_ms": 10.0, "cv": 1.4979}


def test_markdown_table_has_a_line_per_row() -> None:
    assert markdown_table([{"graph": "dense", "ms": 12.5}]) == "| graph | ms |\n| --- | --- |\n| dense | 12.5 |\n"


def test_report_holds_rows_samples_and_machine(tmp_path: Path) -> None:
    json_path, markdown_path = write_report(
        tmp_path / "out", "demo", [{"graph": "dense", "ms": 2.0}], machine_facts(), samples={"dense": [0.002]}
    )
    document = json.loads(json_path.read_text())
    assert document["rows"] == [{"graph": "dense", "ms": 2.0}]
    assert document["samples_s"] == {"dense": [0.002]}
    assert document["facts"]["versions"]["numpy"]
    assert "| dense | 2 |" in markdown_path.read_text()
    assert sorted(path.name for path in json_path.parent.iterdir()) == ["demo.json", "demo.md"]


def test_parser_says_what_is_measured_and_has_a_folder_for_reports() -> None:
    parser = report_parser("net", "How fast a net is.\n\nAnd more of it.")
    assert parser.parse_args([]).out == Path("benchmarks/results")
    assert parser.parse_args(["--out", "there"]).out == Path("there")
    assert parser.format_usage().startswith("usage: python -m benchmarks.net ")
    assert parser.description == "How fast a net is."


def test_users_error_ends_a_benchmark_with_one_line_and_others_are_raised() -> None:
    with pytest.raises(SystemExit) as ended, users_errors("net"):
        raise InputError("no bundle | give one")
    assert ended.value.code == "benchmarks.net: no bundle | give one"
    with pytest.raises(KeyError), users_errors("net"):
        raise KeyError("a fault of ours")
