"""Recipes from TOML: those shipped in the package or a file, with overrides from the command line."""

import itertools
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from edgeseg.errors import InputError
from edgeseg.training.recipe import NetworkRecipe, OptimiserRecipe, QatRecipe, Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def shipped_recipes() -> dict[str, str]:
    """TOML text of each recipe in the package, by name."""
    folder = resources.files("edgeseg.training") / "recipes"
    files = (entry.name for entry in folder.iterdir())
    names = sorted(file.removesuffix(".toml") for file in files if file.endswith(".toml"))
    return {name: (folder / f"{name}.toml").read_text(encoding="utf-8") for name in names}


def recipe_summaries() -> dict[str, str]:
    """What each recipe in the package trains, by its name: the first sentence of the comment that it begins with."""
    summaries = {}
    for name, text in shipped_recipes().items():
        comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
        summaries[name] = re.split(r"[.:](?:\s|$)", " ".join(line.lstrip("# ") for line in comment))[0]
    return summaries


_OF_FIRST_WEIGHTS = ("mean", "std", "colour_order")
"""What no recipe decides."""
_OF_QAT = ("lr", "min_lr", "schedule", "steps", "warmup_steps")
"""Keys of the optimiser that quantisation-aware training decides."""


def load_recipe(name_or_path: str, overrides: Sequence[str] = (), *, qat: bool = False) -> Recipe:
    """The recipe of that name in the package, or of that TOML file, with `key=value` overrides (`optimiser.steps=10`).

    Args:
        qat: make it one of quantisation-aware training, by its table [qat] or that table's defaults.

    Raises:
        InputError: there is none, it is not TOML, a key is unknown, or values are of another type or contradict.
    """
    shipped = shipped_recipes()
    path = Path(name_or_path)
    if name_or_path in shipped:
        name, text = name_or_path, shipped[name_or_path]
    elif path.suffix == ".toml" and path.is_file():
        name, text = path.stem, path.read_text(encoding="utf-8")
    else:
        raise InputError(
            f"no recipe {name_or_path!r} | shipped: {', '.join(shipped)} | or give the path of a .toml file"
        )
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"recipe {name_or_path} is not TOML | {error}") from error
    for override in overrides:
        _check_override(override, qat)
        _override(table, override)
    asked = {"qat": table.pop("qat", {})}
    recipe = parse_recipe({"name": name, **table, **(asked if qat else {})})
    return recipe if recipe.qat is None else replace(recipe, optimiser=_gentle(recipe.optimiser, recipe.qat))


def _check_override(override: str, qat: bool) -> None:
    """Refuse an override that the way of training leaves without effect."""
    table, _, key = override.partition("=")[0].strip().partition(".")
    if qat and table == "optimiser" and key in _OF_QAT:
        instead = f"use --set qat.{key}" if key in ("lr", "steps") else "leave it out"
        raise InputError(f"--set {override} contradicts --qat, which has a schedule of its own | {instead}")
    if not qat and table == "qat":
        raise InputError(f"--set {override} is for quantisation-aware training | add --qat")


def _gentle(optimiser: OptimiserRecipe, qat: QatRecipe) -> OptimiserRecipe:
    return replace(optimiser, steps=qat.steps, lr=qat.lr, min_lr=0.0, warmup_steps=0, schedule="cosine")


def parse_recipe(table: Mapping[str, Any]) -> Recipe:
    """A recipe from the tables of a TOML file.

    Raises:
        InputError: a key is unknown, or values are of another type or contradict each other.
    """
    return _parse(Recipe, table, "")


def _override(table: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"--set {override} is not readable | expected key=value, such as optimiser.steps=500")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {override}: {parent} is a value, not a table")
    table[last] = value


def _parse(cls: type, table: Any, where: str) -> Any:
    """Build dataclass `cls` from a TOML table; `where` is the table's name in messages."""
    if not isinstance(table, Mapping):
        raise InputError(f"recipe: {where} is a table | got {table!r}")
    hints = typing.get_type_hints(cls)
    known = [each.name for each in fields(cls)]
    prefix = f"{where}." if where else ""
    if unknown := [key for key in table if key not in known]:
        inside = [f"{name}.{unknown[0]}" for name in known if unknown[0] in _keys_of(hints[name])]
        meant = f" | did you mean {' or '.join(prefix + key for key in inside)}?" if inside else ""
        if unknown[0] in _OF_FIRST_WEIGHTS:
            meant = " | frames are normalised as the first weights were trained, which edgeseg import is told"
        raise InputError(
            f"recipe: unknown key {prefix}{unknown[0]} | known: {', '.join(prefix + key for key in known)}{meant}"
        )
    missing = [
        each.name
        for each in fields(cls)
        if each.name not in table and each.default is MISSING and each.default_factory is MISSING
    ]
    if missing:
        raise InputError(f"recipe: {prefix}{missing[0]} is missing")
    return cls(**{key: _convert(hints[key], value, f"{prefix}{key}") for key, value in table.items()})


def _keys_of(hint: Any) -> set[str]:
    """Keys of the table that `hint` stands for; none for a plain value."""
    tables = [each for each in (hint, *typing.get_args(hint)) if is_dataclass(each)]
    return {entry.name for table in tables for entry in fields(table)}


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint`, which is one of those that the dataclasses above use."""
    if isinstance(hint, types.UnionType):
        inner = [each for each in typing.get_args(hint) if each is not type(None)]
        return None if value is None else _convert(inner[0], value, where)
    if hint is NetworkRecipe and isinstance(value, Mapping):
        # Which further keys there are is up to the network's builder.
        value = {"options": {key: each for key, each in value.items() if key != "name"}} | (
            {"name": value["name"]} if "name" in value else {}
        )
    if is_dataclass(hint) and isinstance(hint, type):
        return _parse(hint, value, where)
    if typing.get_origin(hint) is tuple:
        item, *rest = typing.get_args(hint)
        if not isinstance(value, (list, tuple)) or (rest != [...] and len(value) != 1 + len(rest)):
            count = "values" if rest == [...] else f"{1 + len(rest)} values"
            raise InputError(f"recipe: {where} is a list of {count} | got {value!r}")
        return tuple(_convert(item, each, where) for each in value)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise InputError(f"recipe: {where} is a table | got {value!r}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise InputError(f"recipe: {where} is of type {hint.__name__} | got {value!r}")
    return value
