"""With `--log-json` a log collector can read all of standard error: each line is an object, whatever happens."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from support.processes import started

RUN = ("-m", "edgeseg", "run")
PLAIN = ("--configuration", "plain_32x48", "--threads", "1")
STREET = ("--source", "street:32x48@15")
WITHIN_S = 60.0


def objects(text: str) -> list[dict]:
    """Each line, which has the form of all logs and is JSON that other readers than Python's take as well."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    records = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
    return records


def logged(*arguments: object, cwd: Path | None = None) -> tuple[int, list[dict]]:
    """Exit code and log of `edgeseg run ARGUMENTS --log-json`, as a process of its own."""
    with started(*RUN, *arguments, "--log-json", cwd=cwd) as process:
        _, said = process.communicate(timeout=WITHIN_S)
    return process.returncode, objects(said)


def test_address_of_the_page_and_measuring_are_events(bundle, tmp_path):
    pytest.importorskip("aiohttp", reason="the live view needs aiohttp: install edgeseg[live]")
    options = ("--frames", "2", "--serve", "0", "--threads", "1")
    code, records = logged(bundle.root, *STREET, *options, cwd=tmp_path)
    assert code == 0
    told = {record.get("event"): record for record in records}
    assert told["live_view"]["url"].startswith("http://127.0.0.1:")
    assert told["live_view"]["needs_token"] is False
    assert told["measuring"]["share"] == 1.0
    assert told["measuring"]["configuration"] in {entry.name for entry in bundle.configurations}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--source", "nothing.mp4", *PLAIN), "no video file"),
        ((*STREET, *PLAIN, "--profile", "p.json"), "--configuration and --profile contradict each other"),
        ((*STREET, *PLAIN, "--frames", "many"), "'--frames': 'many' is not a valid integer range. | see "),
        ((*STREET, *PLAIN, "--sped", "3"), "--sped"),
        (PLAIN, "Missing option '--source'"),
    ],
    ids=["failed", "contradiction", "wrong value", "unknown option", "left out"],
)
def test_why_it_failed_is_an_event(bundle, options, words):
    code, (*_, last) = logged(bundle.root, *options)
    assert code == 2
    assert (last["event"], last["level"], last["exit_code"]) == ("failed", "error", 2)
    assert words in last["message"]
    assert not last["message"].startswith("edgeseg: ")


def test_a_value_that_the_switch_does_not_take_is_told_as_json_too(bundle):
    with started(*RUN, bundle.root, *STREET, *PLAIN, "--log-json=yes") as process:
        (line,) = objects(process.communicate(timeout=WITHIN_S)[1])
    assert line["message"].startswith("Option '--log-json' does not take a value.")


@pytest.mark.parametrize(("number", "event"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_summary_and_signal_are_events_when_one_ends_it(bundle, number, event):
    with started(*RUN, bundle.root, *STREET, *PLAIN, "--json-lines", "-", "--log-json") as process:
        assert process.stdout is not None
        assert "frame_index" in json.loads(process.stdout.readline())
        process.send_signal(number)
        _, said = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 128 + number
    *_, ended, last = objects(said)
    assert (last["event"], last["exit_code"], last["level"]) == (event, 128 + number, "info")
    assert ended["event"] == "run_ended"
    assert ended["summary"]["results"] >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_a_terminal_gets_lines_of_json_and_nothing_that_is_drawn(bundle, tmp_path):
    import subprocess

    ours, theirs = os.openpty()
    heard = bytearray()

    def hear() -> None:
        # The end of a terminal is an error on Linux.
        try:
            while some := os.read(ours, 4096):
                heard.extend(some)
        except OSError:
            pass

    hearing = threading.Thread(target=hear)
    hearing.start()
    try:
        ended = subprocess.run(
            [sys.executable, *RUN, bundle.root, *STREET, "--frames", "2", "--threads", "1", "--log-json"],
            stdout=subprocess.DEVNULL, stderr=theirs, cwd=tmp_path, timeout=WITHIN_S,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm"},
        )  # fmt: skip
    finally:
        os.close(theirs)
        hearing.join()
        os.close(ours)
    assert ended.returncode == 0
    assert "first_labels" in {record.get("event") for record in objects(heard.decode())}


def test_traceback_of_an_internal_error_is_a_field(bundle, monkeypatch):
    def broken(*arguments, **options):
        raise ValueError("a fault")

    monkeypatch.setattr("edgeseg.runtime.session_loading.load", broken)
    command = ["run", str(bundle.root), *STREET, *PLAIN, "--log-json", "--verbose"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    *_, last = objects(result.stderr)
    assert (last["event"], last["exit_code"]) == ("internal_error", 1)
    assert "in broken" in last["error"]
