"""What the guide and the scripts tell people to type exists."""

import re
import shlex

import click
import pytest

from edgeseg.cli import main
from edgeseg.runtime.gstreamer import is_gstreamer, pipeline

FILES = ("README.md", "Containerfile", "setup.sh", "install-service.sh", "edgeseg.service")
# A command of edgeseg, wherever it stands in a line, as far as its words go.
CALL = re.compile(r"(?:^|[\s`/])(?:bin/)?edgeseg ((?:[a-z]+)(?: [^`|\n]*)?)", re.MULTILINE)


def texts(jetson) -> dict[str, str]:
    return {name: (jetson / name).read_text().replace("\\\n", " ") for name in FILES}


def calls(text: str) -> list[list[str]]:
    """Command and words of every call of a command that the command line has."""
    found = []
    for line in CALL.findall(text):
        words = line.split("#")[0].split()
        if words[0] in main.list_commands(click.Context(main)):
            found.append(words)
    return found


def options_of(command: str) -> set[str]:
    found = main.get_command(click.Context(main), command)
    return {option for parameter in found.params for option in parameter.opts} | {"--help", "--verbose"}


@pytest.mark.parametrize("name", FILES)
def test_every_option_of_a_command_exists(jetson, name):
    unknown = [
        (words[0], word)
        for words in calls(texts(jetson)[name])
        for word in words[1:]
        if word.startswith("--") and word.strip("`.,;:()'\"") not in options_of(words[0])
    ]
    assert unknown == []


def test_the_guide_goes_the_whole_way(jetson):
    commands = [words[0] for words in calls(texts(jetson)["README.md"])]
    wanted = ["doctor", "info", "build", "profile", "pick", "run"]
    assert [command for command in dict.fromkeys(commands) if command in wanted] == wanted


def test_every_line_that_begins_with_edgeseg_names_a_command(jetson):
    blocks = re.findall(r"^```bash\n(.*?)^```", texts(jetson)["README.md"], re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("edgeseg ")]
    assert len(lines) >= 10
    for line in lines:
        assert shlex.split(line, comments=True)[1] in main.list_commands(click.Context(main)), line


def test_every_option_of_a_script_exists(jetson):
    for script in ("setup.sh", "install-service.sh"):
        usage = (jetson / script).read_text().partition("TEXT")[2].partition("TEXT")[0]
        known = set(re.findall(r"--[a-z-]+", usage))
        for text in (texts(jetson)["README.md"], texts(jetson)["Containerfile"]):
            for line in re.findall(rf"jetson/{script}([^\n`#]*)", text):
                # Options of edgeseg run are handed on in quotes.
                given = set(re.findall(r"--[a-z-]+", re.sub(r'"[^"]*"', "", line)))
                assert given <= known, line


def test_options_that_are_handed_on_are_those_of_run(jetson):
    handed_on = re.findall(r'--options "([^"]+)"', texts(jetson)["README.md"] + texts(jetson)["install-service.sh"])
    for text in handed_on:
        assert set(re.findall(r"--[a-z-]+", text)) <= options_of("run")


def test_every_camera_that_is_named_stands_for_a_pipeline(jetson):
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", texts(jetson)["README.md"], re.MULTILINE | re.DOTALL))
    sources = {shlex.split(line)[0] for line in re.findall(r"--source (.*)", blocks)}
    cameras = [source for source in sources if is_gstreamer(source)]
    assert len(cameras) >= 4
    for source in cameras:
        assert pipeline(source).endswith("appsink drop=true max-buffers=1 sync=false")


@pytest.mark.parametrize("target", ["Containerfile"])
def test_links_lead_to_files(jetson, target):
    assert f"({target})" in texts(jetson)["README.md"]
    assert (jetson / target).is_file()


def test_the_guide_says_that_it_never_ran_on_a_board(jetson):
    assert "**Nothing on this page has run on a board yet.**" in texts(jetson)["README.md"]


def test_what_the_container_copies_is_there(jetson, repository):
    text = texts(jetson)["Containerfile"]
    sources = [word for line in re.findall(r"^COPY (.*)", text, re.MULTILINE) for word in line.split()[:-1]]
    assert sources
    for source in sources:
        for jetpack in ("6.2", "7.2"):
            assert (repository / source.replace("${JETPACK}", jetpack)).exists(), source


def test_the_containers_files_are_all_that_the_package_is_made_of(jetson, repository):
    copied = {line.split()[0] for line in re.findall(r"^COPY (.*)", texts(jetson)["Containerfile"], re.MULTILINE)}
    mapping = (
        (repository / "pyproject.toml").read_text().partition("[tool.setuptools.package-dir]")[2].partition("[")[0]
    )
    assert {folder.split("/")[0] for folder in re.findall(r'= "([^"]+)"', mapping)} <= copied
