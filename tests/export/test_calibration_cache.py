import json
import logging

import pytest

from edgeseg.config import Configuration
from edgeseg.errors import InputError
from edgeseg.export.calibration_cache import CalibrationCache, ranges_key
from support.small_disk import small_disk

KEY = "ab" * 32
RANGES = {"stem": 1.25, "body": 0.1}


def test_ranges_come_back_as_they_were_stored(tmp_path):
    CalibrationCache(tmp_path / "new" / "cache").put(KEY, RANGES)
    assert CalibrationCache(tmp_path / "new" / "cache").get(KEY) == RANGES


def test_nothing_is_found_under_another_key(tmp_path):
    cache = CalibrationCache(tmp_path)
    cache.put(KEY, RANGES)
    assert cache.get("cd" * 32) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("1.25", "1.35"),
        lambda text: "[]",
        lambda text: json.dumps({"key": "0" * 64, **{k: v for k, v in json.loads(text).items() if k != "key"}}),
    ],
)
def test_damaged_entry_is_ignored_and_replaced(tmp_path, caplog, damage):
    cache = CalibrationCache(tmp_path)
    cache.put(KEY, RANGES)
    (file,) = tmp_path.iterdir()
    file.write_text(damage(file.read_text()))
    with caplog.at_level(logging.WARNING):
        assert cache.get(KEY) is None
    assert "calibrating again" in caplog.text
    cache.put(KEY, RANGES)
    assert cache.get(KEY) == RANGES
    assert list(tmp_path.iterdir()) == [file]


def test_named_folder_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        CalibrationCache(tmp_path / "file" / "cache", must_work=True)


def test_default_folder_that_cannot_be_written_is_done_without(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    CalibrationCache(tmp_path / "file" / "cache").put(KEY, RANGES)
    assert "the calibration is not kept" in caplog.text


def test_full_disk_leaves_nothing_half_written(tmp_path):
    with small_disk(tmp_path, 8 << 10) as disk:
        cache = CalibrationCache(disk)
        cache.put(KEY, {f"layer{number}": float(number) for number in range(5000)})
        assert list(disk.iterdir()) == []


def test_key_changes_with_weights_frames_method_and_role_and_with_nothing_else(make_source):
    def graphs(shift=0.0):
        source = make_source()
        source._network.head.bias.data += shift
        return source.variant(Configuration("tiny", (48, 64), rho=0.25, cwm_form="concat")).graphs

    first = ranges_key(graphs(), "phase0", "0" * 64, ["entropy"])
    assert ranges_key(graphs(), "phase0", "0" * 64, ["entropy"]) == first
    others = {
        ranges_key(graphs(0.5), "phase0", "0" * 64, ["entropy"]),
        ranges_key(graphs(), "phase1", "0" * 64, ["entropy"]),
        ranges_key(graphs(), "phase0", "1" * 64, ["entropy"]),
        ranges_key(graphs(), "phase0", "0" * 64, ["max"]),
    }
    assert len(others | {first}) == 5
