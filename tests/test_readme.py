"""The README keeps its word: its links lead somewhere, its commands and their options exist, its Python is Python."""

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from edgeseg.cli import main

README = Path(__file__).resolve().parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def command_lines() -> list[str]:
    """Lines of shell blocks that call edgeseg, continuation lines joined, and calls in running text."""
    lines = []
    for language, block in BLOCKS:
        if language == "bash":
            lines += [line for line in block.replace("\\\n", " ").splitlines() if line.startswith("edgeseg ")]
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    return lines + re.findall(r"`(edgeseg [^`]+)`", prose)


@pytest.mark.parametrize("line", command_lines())
def test_command_and_its_options_exist(line):
    words = shlex.split(line, comments=True)[1:]
    command = main.get_command(click.Context(main), words[0]) if not words[0].startswith("-") else main
    assert command is not None, f"no command {words[0]}"
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version", "--verbose"}
    assert [word for word in words if word.startswith("--") and word not in known] == []


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", TEXT))
def test_link_leads_to_a_file_of_the_repository(target):
    assert target.startswith("https://") or (README.parent / target).is_file()


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "python"])
def test_python_block_parses(block):
    ast.parse(block)


@pytest.mark.parametrize("what", ["demo", "test"])
def test_marked_block_follows_its_mark(what):
    assert re.search(rf"<!-- run: {what} -->\n```bash\n[^`]+```", TEXT)


def test_benchmarks_that_the_readme_names_exist():
    named = re.findall(r"python -m benchmarks\.(\w+)", TEXT)
    assert named
    assert [name for name in named if not (README.parent / "benchmarks" / f"{name}.py").is_file()] == []
