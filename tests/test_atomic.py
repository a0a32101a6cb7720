import errno

import pytest

from edgeseg.atomic import atomic_file, atomic_folder, check_writable, write_text
from edgeseg.errors import InputError


def test_file_appears_whole_when_the_block_ends_well(tmp_path):
    write_text(tmp_path / "deep" / "a.txt", "text")
    assert (tmp_path / "deep" / "a.txt").read_text() == "text"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_old_file_stays_and_nothing_else_when_the_block_fails(tmp_path, failure):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(failure), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise failure
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_folder_replaces_the_old_one_when_the_block_ends_well(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").touch()
    with atomic_folder(target) as temporary:
        (temporary / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_old_folder_stays_and_nothing_else_when_the_block_fails(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as temporary:
        (temporary / "new").touch()
        raise KeyboardInterrupt
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_full_disk_is_named_and_nothing_is_left(tmp_path):
    with (
        pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"),
        atomic_folder(tmp_path / "b"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_place_that_is_a_file_is_refused_when_a_folder_is_needed(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "text")


def test_check_leaves_nothing_when_the_place_can_be_written(tmp_path):
    check_writable(tmp_path / "deep" / "deeper" / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_check_keeps_what_is_there(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    check_writable(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "old"


def test_check_refuses_a_folder_only_when_a_file_is_to_be_written(tmp_path):
    check_writable(tmp_path, folder=True)
    with pytest.raises(InputError, match="Is a directory"):
        check_writable(tmp_path)


def test_check_refuses_a_disk_without_the_room_that_is_needed(tmp_path):
    check_writable(tmp_path / "a.txt", room_bytes=1)
    with pytest.raises(InputError, match=rf"bytes are free there, up to {1 << 60} are needed\) .*: make room there"):
        check_writable(tmp_path / "a.txt", room_bytes=1 << 60)
    assert list(tmp_path.iterdir()) == []


def test_check_names_the_file_that_is_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"\(.*file is no folder\) .*: choose another place"):
        check_writable(tmp_path / "file" / "deep" / "a.txt")
