"""What a table leaves out when the terminal is narrow."""

import io

import pytest
from rich.console import Console

from edgeseg.cli import tables
from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.runtime.pick import pick


@pytest.fixture
def printed(bundle, monkeypatch):
    """width -> lines of the table of a pick."""
    entries = tuple(LatencyProfile(entry.name, "d", (10.0,) * 5, 5) for entry in bundle.configurations)
    profile = DeviceProfile("cpu", {}, "tiny", bundle.digest, 15.0, True, None, 1, entries, "2026-01-01", "edgeseg")
    chosen = pick(bundle, profile, 15)

    def lines(width):
        out = io.StringIO()
        monkeypatch.setattr(tables, "_console", lambda: Console(file=out, width=width, markup=False))
        tables.print_pick(chosen)
        return out.getvalue().splitlines()

    return lines


def test_all_columns_are_shown_when_there_is_room(printed):
    headings = printed(110)[1].split()
    assert headings == ["configuration", "p50", "ms", "p90", "p99", "k", "mIoU", "sLAmIoU", "LAmIoU", "median", "tax"]


def test_columns_are_left_out_before_names_are_folded_when_it_is_narrow(printed):
    lines = printed(60)
    assert lines[1].split() == ["configuration", "p50", "ms", "k", "mIoU", "sLAmIoU"]
    assert any("phases_32x48_rho0-concat " in line for line in lines)
    assert max(len(line) for line in lines[:6]) <= 60
