"""How the tables of a recipe refuse a value: by the key that the user wrote, what it is, and what it can be."""

from typing import Any

from edgeseg.errors import InputError


def check_range(condition: bool, key: str, value: Any, expected: str) -> None:
    """Refuse `value` unless `condition` holds.

    Args:
        key: as in the file, with its table: `optimiser.lr`.
        expected: the range, in words.

    Raises:
        InputError: the condition does not hold.
    """
    if not condition:
        raise InputError(f"recipe: {key} out of range | got {value}, expected {expected}")


def check_known(key: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is not one of `known`.

    Raises:
        InputError: the message lists them.
    """
    if value not in known:
        raise InputError(f"recipe: unknown {key} {value!r} | known: {', '.join(known)}")
