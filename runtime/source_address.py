"""Addresses of cameras: read from a file where they hold a password, and shown without it.

`@FILE` in place of an address stands for the first line of FILE: what is on a command line can be read by every user of
the machine. All messages, logs, summaries and pages show `public_name`.
"""

import re
from pathlib import Path
from urllib.parse import unquote

from edgeseg.errors import InputError

HIDDEN = "..."
"""Shown in place of what may be secret."""
_ADDRESS_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"']+")
_SECRET_PROPERTY = re.compile(
    r"\b((?:user|proxy)-(?:id|pw)|username|password|passphrase|cookies|token)(\s*=\s*)(?:\"[^\"]*\"|'[^']*'|\S+)",
    re.IGNORECASE,
)


def spelled_out(source: str) -> str:
    """The source itself, or the first line of the file that `@FILE` names.

    Raises:
        InputError: the file cannot be read, or begins with an empty line.
    """
    if not source.startswith("@"):
        return source
    path = Path(source[1:]).expanduser()
    try:
        address = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"{source} cannot be read | {reason} | @FILE names a file with an address in it") from error
    if not address:
        raise InputError(f"{source} holds no address | its first line is empty: write the camera's address there")
    return address


def files_of(source: str) -> tuple[str, ...]:
    """Paths of the files or folders that a source is read from, as far as its name tells: for who would write there.

    They are FILE of `@FILE`, and the source itself without `file://`. A name of something else, such as a camera's
    index, comes as it is.

    Raises:
        InputError: as of `spelled_out`.
    """
    named = spelled_out(source)
    path = unquote(named.removeprefix("file://")) if named.startswith("file://") else named
    return (source[1:], path) if source.startswith("@") else (path,)


def public_name(source: str) -> str:
    """A source as it may be shown: without user, password and query, and what else in an address may be secret.

    In doubt it shows less: of an address with an `@` behind a `?` only the scheme is left, and parts of a path that
    assign something, as in `rtsp://cam/user=admin&password=x`, are hidden. What is no address is shown as it is.

    Args:
        source: address of a stream, pipeline `gst:...`, or any other name of a source.
    """
    if source.startswith("gst:"):
        shown = _ADDRESS_IN_TEXT.sub(lambda found: _public_address(found[0]), source)
        return _SECRET_PROPERTY.sub(rf"\1\2{HIDDEN}", shown)
    return _public_address(source) if "://" in source and not source.startswith("file://") else source


def _public_address(address: str) -> str:
    scheme, _, rest = address.partition("://")
    # A password may hold another @, though it should be written as %40.
    front, at, behind = rest.rpartition("@")
    if at and ("?" in front or "#" in front):
        return f"{scheme}://{HIDDEN}"
    location = re.split("[?#;]", behind, maxsplit=1)[0]
    host, *path = location.split("/")
    return f"{scheme}://" + "/".join([host, *(HIDDEN if "=" in part else part for part in path)])
