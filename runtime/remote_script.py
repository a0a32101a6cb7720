"""The shell script that measures a bundle on another machine: unpacks it, runs edgeseg, writes the profile, tidies up.

It needs a POSIX sh with head, tar and mktemp. Its standard input is the archive of the bundle, which then stays open
as long as somebody waits for the result.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from edgeseg.classes import file_name_safe
from edgeseg.errors import InputError
from edgeseg.runtime.engine_cache import engine_folder

CALLED_BY = "EDGESEG_CALLED_BY"
"""Environment variable that tells an edgeseg that it is the far side."""
PROFILE_HEAD = "edgeseg-profile"
"""First word of the line before the profile on standard output; its bytes and its name follow."""
NO_FOLDER, NO_COMMAND, NOT_UNPACKED, NO_PROFILE = 90, 91, 92, 93
"""Exit statuses of the script itself; others are those of the command that failed."""

_SCRIPT = """
umask 077
work=
child=
tidy() {{
  trap "" HUP INT TERM PIPE
  # A signal may come when it runs and before its number is noted.
  if [ "$child" = starting ]; then child=$!; fi
  if [ -n "$child" ]; then
    kill "$child"
    waits=0
    while kill -0 "$child" && [ $waits -lt 100 ]; do sleep 0.1; waits=$((waits + 1)); done
    kill -9 "$child"
  fi 2>/dev/null
  cd /
  if [ -n "$work" ]; then rm -rf "$work"; fi
}}
trap 'status=$?; tidy; exit "$status"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM
command -v {program} >/dev/null 2>&1 || exit {no_command}
work=$(mktemp -d "${{TMPDIR:-/tmp}}/edgeseg-profile.XXXXXX") || exit {no_folder}
cd "$work" || exit {no_folder}
head -c {archive_bytes} | LC_ALL=C tar -xf - || exit {not_unpacked}
exec 3<&0
# Standard input ends when nobody waits for the result any more.
{{ cat <&3; [ -d "$work" ] && kill "$$"; }} >/dev/null 2>&1 &
exec 3<&-
# What libraries keep for another time would be left behind.
caches="${{XDG_CACHE_HOME:-$HOME/.cache}}/edgeseg/engines"
export TMPDIR="$work" XDG_CACHE_HOME="$work" XDG_CONFIG_HOME="$work" {variable}=ssh
attend() {{
  child=starting
  "$@" </dev/null >/dev/null &
  child=$!
  wait "$child"
  status=$?
  child=
  [ "$status" -eq 0 ] || exit "$status"
}}
{engines}
{calls}
for found in profiles/*.json; do
  [ -f "$found" ] || exit {no_profile}
  echo {profile} $(wc -c <"$found") "${{found##*/}}"
  cat "$found"
done
"""
"""What runs there. `{...}` are filled in by `measuring_script`, every word of them quoted."""

_KEEP_ENGINES = """
if mkdir -p "$caches"/{name} 2>/dev/null && [ -w "$caches"/{name} ]; then
  ln -s "$caches"/{name} "$work"/{beside}
else
  echo "engines are not kept for the next time: $caches cannot be written" >&2
fi
"""
"""Lets the engines beside the bundle lie in a folder that stays."""


def command_words(command: str) -> list[str]:
    """The words of the far side's edgeseg.

    Raises:
        InputError: there are none, or their quotes do not match.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--remote-command cannot be read ({error}) | got {command!r}") from error
    if not words:
        raise InputError("--remote-command is empty | give the far side's edgeseg, such as ~/venv/bin/edgeseg")
    return words


def keeping_engines(folder: str, build_options: Sequence[str]) -> str:
    """The part of the script that keeps the engines of the bundle in `folder`.

    Each set of options has a place of its own: of engines that differ in nothing else a session takes the last built.
    """
    beside = engine_folder(Path(folder)).name
    given = sorted(word.removeprefix("--") for word in build_options)
    name = file_name_safe("_".join([beside.removesuffix(".engines"), *given]))
    return _KEEP_ENGINES.format(name=shlex.quote(name), beside=shlex.quote(beside))


def measuring_script(words: Sequence[str], calls: Sequence[Sequence[str]], archive_bytes: int, engines: str) -> str:
    """The script that makes `calls` of edgeseg one after another, and writes the profile of the last one.

    Args:
        words: of the far side's edgeseg, as `command_words` reads them.
        calls: words that follow them.
        archive_bytes: length of the archive on standard input.
        engines: as of `keeping_engines`; empty: no engines are built.
    """
    # The folder is another one than that of the login when the program is called.
    program = f"~/{words[0]}" if "/" in words[0] and words[0][0] not in "/~" else words[0]
    command = " ".join(map(_quoted, [program, *words[1:]]))
    return _SCRIPT.format(
        program=_quoted(program),
        calls="\n".join(f"attend {command} {shlex.join(call)}" for call in calls),
        archive_bytes=archive_bytes,
        engines=engines,
        variable=CALLED_BY,
        profile=PROFILE_HEAD,
        no_folder=NO_FOLDER,
        no_command=NO_COMMAND,
        not_unpacked=NOT_UNPACKED,
        no_profile=NO_PROFILE,
    )


def _quoted(word: str) -> str:
    """A word for the far side's shell, which it takes as it is; `~/` alone stands for the home there."""
    return '"$HOME"/' + shlex.quote(word[2:]) if word.startswith("~/") else shlex.quote(word)
