import re
import shutil
import subprocess
import sys

import pytest

from support.jetson_root import JETPACK_62, JETPACK_72, write, write_program

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NEWEST_62 = "# R36 (release), REVISION: 5.0, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Thu Jan 1 00:00:00 UTC 2026"


@pytest.fixture
def system_python(tmp_path):
    """version, what check_environment finds -> a system's Python that notes how it is called, and makes environments
    whose Python does too."""

    def made(version: str = "3.10", system: int = 0) -> str:
        log = tmp_path / "calls.txt"
        body = [
            f"echo \"$0 $*\" >> '{log}'",
            'case "$*" in',
            f"  *version_info*) echo {version} ;;",
            f"  *check_environment.py*--system*) exit {system} ;;",
            '  "-m venv --system-site-packages "*)',
            '    mkdir -p "$4/bin"',
            '    echo "include-system-site-packages = true" > "$4/pyvenv.cfg"',
            '    cp "$0" "$4/bin/python"; cp "$0" "$4/bin/edgeseg" ;;',
            "esac",
        ]
        return str(write_program(tmp_path / "system" / "python3", body))

    return made


def calls(tmp_path) -> list[str]:
    log = tmp_path / "calls.txt"
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize(
    ("release", "words", "requirements"),
    [
        (JETPACK_62, "JetPack  6.2 (L4T 36.4.4), Python 3.10, TensorRT 10.3", "requirements-6.2.txt"),
        (NEWEST_62, "JetPack  6.2 (L4T 36.5.0), Python 3.10", "requirements-6.2.txt"),
        (JETPACK_72, "JetPack  7.2 (L4T 39.2.1), Python 3.12, TensorRT 10.16", "requirements-7.2.txt"),
    ],
)
def test_dry_run_says_what_it_would_do_and_does_nothing(run, board, tmp_path, release, words, requirements):
    write(board / "etc/nv_tegra_release", release)
    before = sorted(tmp_path.rglob("*"))
    done = run("setup.sh", "--dry-run", "--venv", tmp_path / "venv")
    assert done.returncode == 0, done.stderr
    assert "NVIDIA Jetson Orin Nano" in done.stdout
    assert words in done.stdout
    assert f"would run: /usr/bin/python3 -m venv --system-site-packages {tmp_path}/venv" in done.stdout
    assert requirements in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("# R36 (release), REVISION: 4.0, GCID: 1", "L4T 36.4.0 is JetPack 6.0 or 6.1"),
        ("# R36 (release), REVISION: 3.0, GCID: 1", "L4T 36.3.0 is JetPack 6.0 or 6.1"),
        ("# R35 (release), REVISION: 4.1, GCID: 1", "L4T 35.4.1 is JetPack 4 or 5, whose TensorRT 8"),
        ("# R32 (release), REVISION: 7.1, GCID: 1", "L4T 32.7.1 is JetPack 4 or 5"),
        ("# R38 (release), REVISION: 4.0, GCID: 1", "L4T 38.4.0 is JetPack 7.0 or 7.1"),
        ("# R39 (release), REVISION: 1.0, GCID: 1", "L4T 39.1.0 is not known"),
        ("# R40 (release), REVISION: 1.0, GCID: 1", "L4T 40.1.0 is not known"),
        ("hello", "is not understood | got: hello"),
    ],
)
def test_another_jetpack_is_refused_before_anything_is_done(run, board, release, words):
    write(board / "etc/nv_tegra_release", release)
    done = run("setup.sh", "--dry-run")
    assert done.returncode == 2
    assert words in done.stderr
    assert "would run" not in done.stdout


def test_another_machine_is_refused(run, board):
    (board / "etc/nv_tegra_release").unlink()
    done = run("setup.sh", "--dry-run")
    assert done.returncode == 2
    assert re.fullmatch(r"setup\.sh: no .*/etc/nv_tegra_release \| this is no Jetson.*\n", done.stderr)


@pytest.mark.parametrize(("option", "words"), [("--clocks", "unknown option --clocks"), ("--venv", "--venv needs")])
def test_a_wrong_option_is_refused(jetson, option, words):
    done = subprocess.run([str(jetson / "setup.sh"), option], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr


def test_what_is_installed_and_in_which_order(run, jetson, repository, tmp_path, system_python):
    done = run("setup.sh", "--venv", tmp_path / "venv", "--python", system_python())
    assert done.returncode == 0, done.stderr
    python = tmp_path / "venv" / "bin" / "python"
    assert [call for call in calls(tmp_path) if "version_info" not in call] == [
        f"{tmp_path}/system/python3 {jetson}/check_environment.py --system",
        f"{tmp_path}/system/python3 -m venv --system-site-packages {tmp_path}/venv",
        f"{python} -m pip install --quiet --requirement {jetson}/requirements-6.2.txt",
        f"{python} -m pip install --quiet --no-deps --force-reinstall {repository}",
        f"{python} {jetson}/check_environment.py",
        f"{tmp_path}/venv/bin/edgeseg --version",
    ]


def test_it_can_be_run_again(run, tmp_path, system_python):
    arguments = ("setup.sh", "--venv", tmp_path / "venv", "--python", system_python())
    assert run(*arguments).returncode == 0
    again = run(*arguments)
    assert again.returncode == 0
    assert "is there" in again.stdout
    assert sum("-m venv" in call for call in calls(tmp_path)) == 1


def test_an_environment_that_does_not_see_the_systems_packages_is_refused(run, tmp_path, system_python):
    write(tmp_path / "venv" / "pyvenv.cfg", "include-system-site-packages = false")
    done = run("setup.sh", "--venv", tmp_path / "venv", "--python", system_python())
    assert done.returncode == 2
    assert "does not see the system's packages" in done.stderr
    assert not any("pip" in call for call in calls(tmp_path))


def test_another_python_than_jetpacks_is_refused(run, tmp_path, system_python):
    done = run("setup.sh", "--venv", tmp_path / "venv", "--python", system_python("3.12"))
    assert done.returncode == 2
    assert "is Python 3.12 | JetPack 6.2 has its TensorRT for Python 3.10" in done.stderr


def test_nothing_is_installed_when_the_system_lacks_something(run, tmp_path, system_python):
    done = run("setup.sh", "--venv", tmp_path / "venv", "--python", system_python(system=2))
    assert done.returncode == 2
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("name", ["setup.sh", "install-service.sh"])
def test_neither_clocks_nor_power_mode_nor_swap_are_ever_set(jetson, name):
    text = (jetson / name).read_text()
    commands = text.partition("cat <<TEXT")[0] if name == "setup.sh" else text
    assert re.findall(r"\b(nvpmodel -m|jetson_clocks|swapon|swapoff|nvfancontrol)\b", commands) == []


@pytest.mark.parametrize("name", ["setup.sh", "install-service.sh"])
def test_scripts_stop_at_the_first_failure(jetson, name):
    assert (jetson / name).read_text().splitlines().count("set -euo pipefail") == 1


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", ["setup.sh", "install-service.sh"])
def test_shellcheck_finds_nothing(jetson, name):
    done = subprocess.run(["shellcheck", str(jetson / name)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def requirements(path) -> set[str]:
    return {line for line in path.read_text().splitlines() if line and not line.startswith("#")}


def without_bound(requirement: str) -> str:
    return requirement.removesuffix(",<2").partition(";")[0].strip()


@pytest.mark.parametrize("name", ["requirements-6.2.txt", "requirements-7.2.txt"])
def test_requirements_are_edgesegs_without_opencv(repository, jetson, name):
    own = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {without_bound(each) for each in own if not each.startswith("opencv")}
    if name.endswith("7.2.txt"):
        wanted.discard("tomli>=2")
    listed = requirements(jetson / name)
    assert {without_bound(each) for each in listed if not each.startswith(("onnx>", "cuda-bindings"))} == wanted
    assert not any(each.startswith(("opencv", "tensorrt")) for each in listed)


@pytest.mark.parametrize(
    ("name", "major"), [("requirements-6.2.txt", ">=12.9,<13"), ("requirements-7.2.txt", ">=13,<14")]
)
def test_cuda_bindings_are_those_of_the_boards_cuda(jetson, name, major):
    assert f"cuda-bindings{major}" in requirements(jetson / name)
