import pytest

from edgeseg.classes import CAMVID, CITYSCAPES, ClassSet, distinct_colours, file_name_safe
from edgeseg.errors import InputError


def test_known_sets_have_their_sizes_and_movable_classes():
    assert (len(CAMVID), len(CITYSCAPES)) == (11, 19)
    assert CAMVID.movable_indices == (8, 9, 10)
    assert CITYSCAPES.movable_indices == tuple(range(11, 19))


def test_palette_table_maps_classes_to_colours_and_the_rest_to_black():
    table = CAMVID.palette_rgb
    assert table[3].tolist() == [128, 64, 128]
    assert not table[11:].any()


def test_class_set_survives_the_round_trip_through_json_values():
    assert ClassSet.from_dict(CAMVID.as_dict()) == CAMVID


def test_palette_is_made_when_none_is_given():
    assert ClassSet.from_dict({"names": ["a", "b"]}).palette == ((128, 0, 0), (0, 128, 0))
    assert len(set(distinct_colours(60))) == 60


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"names": ["a", "a"]}, "unique"),
        ({"names": []}, "1 to 254"),
        ({"names": ["a"], "palette": [[0, 0, 0], [1, 1, 1]]}, "one colour per class"),
        ({"names": ["a"], "palette": [[0, 0, 300]]}, "0 to 255"),
        ({"names": ["a", "b"], "ignore_value": 1}, "ignore_value"),
        ({"names": ["a"], "movable": ["z"]}, "unknown classes: z"),
        ({"palette": []}, "not readable"),
    ],
)
def test_class_set_is_refused_when_it_contradicts_itself(values, message):
    with pytest.raises(InputError, match=message):
        ClassSet.from_dict(values)


def test_file_name_has_only_harmless_characters():
    assert file_name_safe("AMD EPYC (2 x/..)") == "AMD-EPYC-2-x"
    assert file_name_safe("../") == "unnamed"
