from dataclasses import replace

import pytest

from edgeseg.calibration_record import Calibration
from edgeseg.errors import InputError

RECORD = Calibration("camvid", "train", 64, 320, (180, 240), "0a" * 32, "entropy", warm_up=8, stills_moved=True)


def test_record_is_the_same_after_json():
    values = RECORD.as_dict()
    assert values["size_hw"] == [180, 240]
    assert Calibration.from_dict(values) == RECORD


def test_text_says_where_the_images_are_from():
    assert RECORD.text == "entropy, 64 images of camvid train after 8 steps each, stills moved (0a0a0a0a)"
    assert "where it is scored too" in replace(RECORD, also_scored=True).text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 0}, "1 to `frames` images"),
        ({"images": 321}, "got 321 of 320 frames"),
        ({"sha256": "unknown"}, "SHA-256"),
        ({"warm_up": -1}, "warm_up"),
    ],
)
def test_record_out_of_range_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(RECORD, **change)
