"""`edgeseg run --serve` as a process, and what it refuses."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.runtime.session_loading import load

pytest.importorskip("aiohttp", reason="the live view needs aiohttp: install edgeseg[live]")
PLAIN = ("--source", "street", "--configuration", "plain_32x48", "--threads", "1")


def refusal(bundle, *arguments):
    result = CliRunner().invoke(main, ["run", str(bundle.root), *PLAIN, *map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--serve", "0.0.0.0:0"], "give --token or --token-file"),
        (["--serve", "nowhere"], "--serve is [HOST:]PORT"),
        (["--serve", "0", "--token", "short"], "--token has 8 to 256 characters"),
        (["--serve", "0", "--token-file", "missing"], "--token-file missing cannot be read"),
        (["--serve", "0", "--tls-cert", "cert.pem"], "give both, or neither"),
        (["--serve", "0", "--tls-cert", "cert.pem", "--tls-key", "key.pem"], "--tls-cert cert.pem cannot be read"),
        (["--serve", "192.0.2.7:0", "--token", "long enough".replace(" ", "-")], "no interface of this machine"),
        (["--token", "long-enough"], "--token is about the live view | give --serve"),
        (["--tls-key", "key.pem"], "--tls-key is about the live view | give --serve"),
    ],
)
def test_run_exits_with_2_and_one_line_when_it_cannot_serve(bundle, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    assert words in refusal(bundle, *options)


def test_run_says_that_the_port_is_in_use_before_it_measures(bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "choose another port" in refusal(bundle, "--serve", taken.getsockname()[1])


def test_run_serves_and_frees_the_port_at_its_end(bundle):
    result = CliRunner().invoke(main, ["run", str(bundle.root), *PLAIN, "--serve", "0", "--frames", "2"])
    assert result.exit_code == 0, result.output
    port = int(re.search(r"live view  http://127\.0\.0\.1:(\d+)/", result.stderr)[1])
    socket.create_server(("127.0.0.1", port)).close()


def test_run_says_that_it_is_starting_while_it_measures(bundle, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = []

    def measuring(*arguments, **options):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=20)
        told.append((refused.value.code, json.loads(refused.value.read())["status"]))
        return load(*arguments, **options)

    monkeypatch.setattr("edgeseg.runtime.session_loading.load", measuring)
    monkeypatch.setattr("edgeseg.runtime.viewer.live_view.is_process_possible", lambda: False)
    result = CliRunner().invoke(main, ["run", str(bundle.root), *PLAIN, "--serve", str(port), "--frames", "2"])
    assert result.exit_code == 0, result.output
    assert told == [(503, "starting")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_ends_within_two_seconds_while_somebody_watches(bundle, number):
    command = [sys.executable, "-m", "edgeseg", "run", str(bundle.root), *PLAIN, "--serve", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://\S+", process.stderr.readline())[0]
        # Answered when the loop runs: the port is open before.
        with urllib.request.urlopen(f"{url}stream.mjpg", timeout=60) as stream:
            assert stream.readline() == b"--edgeseg-frame\r\n"
            process.send_signal(number)
            began = time.monotonic()
            _, said = process.communicate(timeout=20)
            assert time.monotonic() - began < 2
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number
    assert "Traceback" not in said
