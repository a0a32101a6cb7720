"""The training's log: a CSV file that grows by a row now and then."""

from pathlib import Path

from edgeseg.atomic import write_text
from edgeseg.errors import InputError

HEADER = "step,learning_rate,loss,val_miou"


def begin_log(path: Path, step: int) -> None:
    """A log with the rows up to `step` only: what came after a saved state is trained again."""
    rows = path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() and step else []
    kept = [row for row in rows if row.partition(",")[0].isdigit() and int(row.partition(",")[0]) <= step]
    write_text(path, "\n".join([HEADER, *kept]) + "\n")


def append_row(path: Path, row: str) -> None:
    """Add `row`, which ends in a line break.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as log:
            log.write(row)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}) | make room and go on with --resume"
        ) from error
