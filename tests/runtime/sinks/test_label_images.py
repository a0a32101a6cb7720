import cv2
import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.sinks import LabelImages
from edgeseg.runtime.sinks.label_images import label_png
from support.small_disk import small_disk


def test_a_file_per_frame_holds_the_label_values(made, tmp_path):
    with LabelImages(tmp_path / "labels") as sink:
        for index in (0, 1, 5):
            sink.write(made(index))
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == [
        "00000000.png", "00000001.png", "00000005.png",
    ]  # fmt: skip
    read = cv2.imread(str(tmp_path / "labels" / "00000005.png"), cv2.IMREAD_UNCHANGED)
    assert read.shape == (32, 48)
    assert (read == 2).all()


def test_labels_of_any_value_come_back_as_they_were():
    labels = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
    read = cv2.imdecode(np.frombuffer(label_png(labels), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read, labels)


def test_a_palette_shows_the_colours_of_the_classes_and_keeps_the_values(made, tmp_path):
    image = pytest.importorskip("PIL.Image")
    result = made(2)
    with LabelImages(tmp_path, palette=result.classes) as sink:
        sink.write(result)
    assert cv2.imread(str(tmp_path / "00000002.png"))[0, 0].tolist() == [255, 0, 0]
    with image.open(tmp_path / "00000002.png") as opened:
        assert opened.mode == "P"
        np.testing.assert_array_equal(np.asarray(opened), result.labels)


def test_only_whole_files_are_there_when_the_disk_is_full(made, tmp_path):
    with small_disk(tmp_path, 65536), LabelImages(tmp_path) as sink:
        with pytest.raises(InputError, match="No space left"):
            for index in range(1000):
                sink.write(made(index))
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == [f"{index:08d}.png" for index in range(len(names))]
        assert all(cv2.imread(str(tmp_path / name)) is not None for name in names)


def test_labels_of_another_run_are_refused_and_stay(made, tmp_path):
    with LabelImages(tmp_path) as sink:
        sink.write(made(7))
    for refusing in (LabelImages(tmp_path).check, LabelImages(tmp_path).open):
        with pytest.raises(InputError, match=r"exists \| --overwrite replaces it"):
            refusing()
    assert [path.name for path in tmp_path.iterdir()] == ["00000007.png"]


def test_labels_of_another_run_are_removed_when_told_to_and_other_files_are_not(made, tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for index in (7, 3):
        with LabelImages(tmp_path, overwrite=True) as sink:
            sink.write(made(index))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000003.png", "notes.txt"]


def test_a_folder_that_cannot_be_made_is_refused_by_the_name_it_was_given(tmp_path):
    with pytest.raises(InputError) as refused:
        LabelImages("/proc/labels").check()
    assert "/proc/labels cannot be written" in str(refused.value)


def test_a_place_that_is_no_folder_is_refused_before_the_loop_begins(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        LabelImages(tmp_path / "file").open()
