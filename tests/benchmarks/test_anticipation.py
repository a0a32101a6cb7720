"""The benchmark of anticipation, on the shipped bundle's tables."""

import argparse
from dataclasses import replace

import pytest

from benchmarks import anticipation as benchmark
from edgeseg.bundle import Bundle
from edgeseg.errors import InputError
from edgeseg.shipped import bundle_path


def test_rows_tell_what_was_trained_and_what_is_moved():
    bundle = Bundle.open(bundle_path("shipped:street"))
    entry = bundle.configurations[0]
    anticipating = replace(entry, knobs=replace(entry.knobs, target_offset=2))
    rows = benchmark.rows_of(replace(bundle, configurations=(anticipating,)))
    assert [row["labels"] for row in rows][:2] == ["as they come", "moved"]
    assert {row["trained for"] for row in rows} == {"t+2"}
    assert rows[0]["k=3"] == round(entry.accuracy.miou[3], 3)
    assert rows[1]["moving k=3"] == round(entry.accuracy.compensated[0].movable_miou[3], 3)


@pytest.mark.parametrize("names", ["none", "all"])
def test_anything_but_one_compensation_that_moves_labels_is_refused(names):
    with pytest.raises(InputError, match="one compensation"):
        benchmark.measure(argparse.Namespace(compensation=names))
