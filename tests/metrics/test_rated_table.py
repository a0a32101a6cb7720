import pytest

from edgeseg.errors import InputError
from edgeseg.metrics.latency_aware import AccuracyTable, expected_lamiou, lamiou
from edgeseg.metrics.rated_table import RatedTable

TABLE = AccuracyTable((0.8, 0.6, 0.5, 0.45))


def test_lookups_are_those_of_the_table_when_the_rates_agree():
    rated = RatedTable(TABLE, 15.0, 15.0)
    assert rated.is_exact
    for latency in (0.0, 0.01, 1 / 15, 0.1, 0.3):
        assert rated.lamiou(latency) == lamiou(TABLE, latency, 15.0)
    samples = [0.05, 0.07, 0.15]
    assert rated.expected(samples) == pytest.approx(expected_lamiou(TABLE, samples, 15.0))


def test_every_second_entry_is_read_when_the_camera_is_half_as_fast():
    rated = RatedTable(TABLE, 30.0, 15.0)
    assert rated.is_exact
    assert rated.lamiou(0.05) == 0.5


def test_entries_are_joined_linearly_when_the_camera_is_twice_as_fast():
    rated = RatedTable(TABLE, 15.0, 30.0)
    assert not rated.is_exact
    assert rated.lamiou(0.02) == pytest.approx(0.7)
    assert rated.lamiou(0.05) == pytest.approx(0.6)


def test_best_from_finds_a_later_peak():
    rated = RatedTable(AccuracyTable((0.3, 0.2, 0.4, 0.1)), 10.0, 10.0)
    assert rated.best_from(0.05) == 0.4
    assert rated.best_from(0.25) == pytest.approx(0.1)


def test_best_from_is_the_interpolated_entry_when_scores_fall():
    assert RatedTable(TABLE, 15.0, 30.0).best_from(0.02) == pytest.approx(0.7)


def test_is_bound_beyond_the_last_entry_only():
    rated = RatedTable(TABLE, 10.0, 10.0)
    assert not rated.is_bound(0.3)
    assert rated.is_bound(0.31)


def test_frame_rates_must_be_positive():
    with pytest.raises(InputError, match="frame rates must be positive"):
        RatedTable(TABLE, 15.0, 0.0)
