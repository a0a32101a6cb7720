"""A tar archive as a stream of bytes whose size is known before the first of them."""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import ArtifactError

_END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class Member:
    """One file of an archive."""

    name: str
    """Path in the archive."""
    content: Path | bytes
    """What it holds, or the file that it is read from when its turn comes."""
    size: int
    """Bytes."""

    @classmethod
    def of_file(cls, name: str, path: Path) -> "Member":
        """The file at `path` as it is now."""
        return cls(name, path, path.stat().st_size)

    @property
    def head(self) -> bytes:
        """What stands before the content."""
        info = tarfile.TarInfo(self.name)
        info.size, info.mode = self.size, 0o600
        return info.tobuf(tarfile.GNU_FORMAT)

    @property
    def padded(self) -> int:
        """Bytes of the content up to a whole block."""
        return -(-self.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

    def chunks(self) -> Iterator[bytes]:
        """Head, content and padding.

        Raises:
            ArtifactError: the file is not as long as it was any more.
        """
        yield self.head
        yield from [self.content] if isinstance(self.content, bytes) else self._of_file(self.content)
        yield bytes(self.padded - self.size)

    def _of_file(self, path: Path) -> Iterator[bytes]:
        sent = 0
        with open(path, "rb") as file:
            while chunk := file.read(1 << 18):
                sent += len(chunk)
                yield chunk
        if sent != self.size:
            raise ArtifactError(f"{path} changed while it was copied | try again when it is whole")


def archive_size(members: Sequence[Member]) -> int:
    """Bytes of the archive of `members`."""
    return sum(len(member.head) + member.padded for member in members) + len(_END)


def archive(members: Sequence[Member]) -> Iterator[bytes]:
    """The archive in pieces.

    Raises:
        ArtifactError: a file is not as long as it was any more.
    """
    for member in members:
        yield from member.chunks()
    yield _END
