import io
import tarfile

import pytest

from edgeseg.errors import ArtifactError
from edgeseg.runtime.tar_stream import Member, archive, archive_size


def test_archive_is_read_by_others_and_as_long_as_it_was_said_to_be(tmp_path):
    (tmp_path / "b").write_bytes(bytes(range(256)) * 5000)
    (tmp_path / "whole").write_bytes(bytes(512))
    long_name = "folder/" + 120 * "n"
    members = [
        Member("a", b"", 0),
        Member.of_file(long_name, tmp_path / "b"),
        Member.of_file("c", tmp_path / "whole"),
        Member("ü", b"last", 4),
    ]
    stream = b"".join(archive(members))
    assert len(stream) == archive_size(members)
    with tarfile.open(fileobj=io.BytesIO(stream)) as opened:
        found = {info.name: opened.extractfile(info).read() for info in opened}
    assert found == {"a": b"", long_name: bytes(range(256)) * 5000, "c": bytes(512), "ü": b"last"}


@pytest.mark.parametrize("content", [b"shorter", b"longer than it was"])
def test_file_that_changed_on_the_way_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(b"as it was")
    member = Member.of_file("a", tmp_path / "a")
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ArtifactError, match="changed while it was copied"):
        list(archive([member]))
