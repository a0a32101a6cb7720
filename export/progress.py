"""Who is told how far an export is."""

from typing import Protocol


class Progress(Protocol):
    """Told how far an export is."""

    def stage(self, text: str, steps: int) -> None:
        """A new stage begins, of about `steps` steps."""

    def advance(self) -> None:
        """One step of it is done."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


class NoProgress:
    """Tells nobody."""

    def stage(self, text: str, steps: int) -> None:
        """Nothing."""

    def advance(self) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
