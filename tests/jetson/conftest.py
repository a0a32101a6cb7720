"""The scripts, and boards to run them against."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.jetson_root import write_board


@pytest.fixture(scope="session")
def jetson(repository: Path) -> Path:
    """The folder of the scripts."""
    return repository / "jetson"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Root of an Orin Nano with JetPack 6.2."""
    return write_board(tmp_path / "root")


@pytest.fixture
def run(jetson: Path, board: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script on that board, from another folder."""

    def script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(jetson / name), *map(str, arguments), "--root", str(board)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)

    return script
