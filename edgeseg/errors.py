"""The errors that edgeseg raises on purpose.

Each message says what failed, what was found and expected, and what to do about it. The command line prints the message
alone and exits with 2; any other exception is a fault of edgeseg. `first_line` and `one_line` make what another library
raises a part of such a message.
"""

import re

_ONNXRUNTIME_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : ")
_LONGEST = 400


class EdgesegError(Exception):
    """Something that the user can mend: a wrong path, a damaged file, contradictory options."""


class InputError(EdgesegError):
    """An argument, a frame, a label map or a data set is not what it has to be."""


class ArtifactError(EdgesegError):
    """A file that edgeseg wrote (checkpoint, bundle, device profile) is damaged, foreign or of an unknown version."""


class ParityError(EdgesegError):
    """An exported graph does not compute what its network computes."""


class DeviceError(EdgesegError):
    """A device or backend is unknown, not usable on this machine, or failed while running."""


class SourceError(EdgesegError):
    """A camera or video cannot be opened, or broke in the middle."""


class MissingPackageError(EdgesegError):
    """An optional package that this command needs is not installed."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception of another library says, without the code that ONNX Runtime puts before it;
    the exception itself when it says nothing."""
    return _ONNXRUNTIME_CODE.sub("", (str(error).strip() or repr(error)).splitlines()[0])[:_LONGEST]


def one_line(error: BaseException) -> str:
    """As `first_line`, of all its lines: for exceptions that begin with a heading and come to the point below it."""
    return _ONNXRUNTIME_CODE.sub("", " ".join((str(error).strip() or repr(error)).split()))[:_LONGEST]
