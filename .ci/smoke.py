"""Smoke test of an installed wheel, run from a folder that is not the checkout, without torch."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

EDGESEG = str(Path(sys.executable).with_name("edgeseg"))


def run(*arguments: str, folder: str) -> str:
    print("$ edgeseg", *arguments, flush=True)
    return subprocess.run([EDGESEG, *arguments], check=True, stdout=subprocess.PIPE, text=True, cwd=folder).stdout


assert importlib.util.find_spec("torch") is None, "the smoke test needs an environment without torch"
files = {str(path) for path in importlib.metadata.files("edgeseg") or ()}
for wanted in (
    "edgeseg/runtime/session.py",
    "edgeseg/export/__init__.py",
    "edgeseg/training/recipes/camvid.toml",
    "edgeseg/shipped/street.safetensors",
    "edgeseg/shipped/street.edgeseg/manifest.json",
    "edgeseg/py.typed",
):
    assert wanted in files, f"the wheel lacks {wanted}"
assert not [path for path in files if path.startswith(("tests/", "benchmarks/", "export/", "runtime/"))]

with tempfile.TemporaryDirectory() as folder:
    run("--help", folder=folder)
    run("doctor", folder=folder)
    run("info", "shipped:street", folder=folder)
    profile = ("profile", "shipped:street", "--fps", "15", "--out", "cpu.json", "--samples", "10", "--json")
    run(*profile, folder=folder)
    picked = json.loads(run("pick", "shipped:street", "--profile", "cpu.json", "--fps", "15", "--json", folder=folder))
    print("picked", picked["configuration"])
    loop = (
        "run",
        "shipped:street",
        "--profile",
        "cpu.json",
        "--source",
        "street",
        "--frames",
        "30",
        "--save",
        "out.mp4",
    )
    run(*loop, folder=folder)
    assert (Path(folder) / "out.mp4").stat().st_size > 10_000
print("smoke test passed")
