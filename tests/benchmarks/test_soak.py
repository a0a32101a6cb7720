"""The soak benchmark, at a size that tests can afford."""

import pytest

from benchmarks.soak import Plan, Steps, soak
from edgeseg.runtime.session_loading import load
from edgeseg.shipped import bundle_path


def test_soak_counts_what_the_camera_did_and_loses_nothing_uncounted(monkeypatch):
    pytest.importorskip("av")
    # With two losses the camera never stalls; a machine that is away for that long must not look like it.
    monkeypatch.setattr("benchmarks.soak.STALL_S", 20.0)
    with load(bundle_path("shipped:street"), configuration="swiftnet_r18_268x360_w0.25", threads=1) as session:
        row = soak(Steps(session), Plan(steps=200, losses=2, corrupt=5))
    assert row["steps"] >= 200
    assert row["lost uncounted"] == 0
    # A busy machine drops frames, and so needs more of them, and meets more damage, for as many steps.
    for kind, least in (("reconnections", 2), ("corrupt", 5)):
        counted, happened = map(int, row[kind].split(" of "))
        assert counted == happened >= least
