"""What tune leaves: bundle, profile and plot in their places, or nothing anywhere when one of them cannot be there."""

from pathlib import Path

import pytest

from edgeseg.cli.tune_output import publish
from edgeseg.errors import InputError
from support.small_disk import small_disk

ROOM_BYTES = 16 << 10
"""Of the small disk."""
BEYOND_IT = b"x" * (2 * ROOM_BYTES)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder of a bundle of two files."""
    folder = tmp_path / "made" / "a.edgeseg"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "weights.bin").write_bytes(BEYOND_IT)
    return folder


def test_all_is_in_its_place(made: Path, tmp_path: Path) -> None:
    profile = tmp_path / "made" / "p.json"
    profile.write_text("[]")
    publish({tmp_path / "new/p.json": profile}, (tmp_path / "a.edgeseg", made))
    assert (tmp_path / "new/p.json").read_text() == "[]"
    assert {path.name: path.read_bytes() for path in (tmp_path / "a.edgeseg").iterdir()} == {
        "manifest.json": b"{}",
        "weights.bin": BEYOND_IT,
    }


def test_no_bundle_is_left_when_the_disk_of_the_profile_is_full(made: Path, tmp_path: Path) -> None:
    profile = tmp_path / "made" / "p.json"
    profile.write_bytes(BEYOND_IT)
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", ROOM_BYTES) as disk:
        with pytest.raises(InputError, match=r"p\.json cannot be written \(No space left on device\) \| nothing was"):
            publish({disk / "p.json": profile}, (tmp_path / "a.edgeseg", made))
        assert list(disk.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "made"]


def test_a_full_disk_is_said_plainly_and_no_profile_is_left_when_it_is_that_of_the_bundle(
    made: Path, tmp_path: Path
) -> None:
    profile = tmp_path / "made" / "p.json"
    profile.write_text("[]")
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", ROOM_BYTES) as disk:
        with pytest.raises(InputError) as caught:
            publish({tmp_path / "p.json": profile}, (disk / "a.edgeseg", made))
        assert list(disk.iterdir()) == []
        place = disk / "a.edgeseg"
    assert str(caught.value) == (
        f"{place} cannot be written (No space left on device) | nothing was left behind: make room there"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "made"]


def test_a_bundle_that_was_there_stays_when_the_profile_cannot_be_written(made: Path, tmp_path: Path) -> None:
    before = tmp_path / "a.edgeseg"
    before.mkdir()
    (before / "manifest.json").write_text("of before")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        publish({tmp_path / "file/p.json": made / "manifest.json"}, (before, made))
    assert [path.read_text() for path in before.iterdir()] == ["of before"]
