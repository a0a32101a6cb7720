"""The errors that edgeseg raises on purpose.

Each message says what failed, what was found and expected, and what to do about it. The command line prints the message
alone and exits with 2; any other exception is a fault of edgeseg.
"""


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
