"""The server as a process of its own: what it is, and that it lives neither shorter nor longer than it should."""

import gc
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.runtime.overlay import overlay
from edgeseg.runtime.viewer import keeper
from support.browser import chromium_page
from support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere than on Linux the server is a thread")
TOKEN = "a-token-of-some-length"
START_S = 60
"""A server has little of a busy machine: whoever asks it first waits until it has started."""

SCRIPT = """
import sys, time
import numpy as np
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.viewer import Viewer

def frames():
    while True:
        time.sleep(0.02)
        yield time.monotonic(), np.full((32, 48, 3), 100, np.uint8)

session = load(sys.argv[1], configuration="plain_32x48", threads=1)
told = False
with Loop(session, frames(), fps=50) as loop, Viewer(loop, "0", stale_s=1.0) as viewer:
    for result in loop:
        viewer.show(result)
        if viewer.pid and not told:
            told = True
            print(viewer.url, viewer.pid, flush=True)
"""
LIGHT = """
import sys
import edgeseg.runtime.viewer.server, edgeseg.runtime.viewer.server_process
heavy = {"torch", "onnx", "onnxruntime", "edgeseg.runtime.loop"} & set(sys.modules)
assert not heavy, heavy
"""


def fetched(url, path="", **headers):
    """Status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers), timeout=START_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def has_ended(descriptor):
    """Whether the process of a `pidfd_open` ends in time."""
    ready, _, _ = select.select([descriptor], [], [], START_S)
    return bool(ready)


@pytest.fixture
def ordinary_priority(monkeypatch):
    """Servers stay at the priority that they start with: a busy machine has time for tests then."""
    usual, import_main = keeper._BEGIN, "from edgeseg.runtime.viewer.server_process import main"
    changed = "import edgeseg.runtime.viewer.server_process as s; s.step_back = lambda: None; main = s.main"
    assert import_main in usual
    monkeypatch.setattr(keeper, "_BEGIN", usual.replace(import_main, changed))


@pytest.fixture
def quick(monkeypatch):
    """A server that ended is started again at once."""
    monkeypatch.setattr(keeper, "FIRST_WAIT_S", 0.01)


def python_shared_memory() -> set[str]:
    """What Python programs left in shared memory; other programs, and tests beside this one, name theirs otherwise."""
    return {name for name in os.listdir("/dev/shm") if name.startswith(("psm_", "sem.", "mp-"))}


@pytest.fixture
def script(bundle):
    """A user's program without a main guard: its process, the address of its view, the process that serves it."""
    before = python_shared_memory()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(bundle.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        url, pid = process.stdout.readline().split()
        assert fetched(url, "healthz")[0] == 200
        yield process, url, os.pidfd_open(int(pid))
    finally:
        process.kill()
        process.communicate()
    assert python_shared_memory() <= before


def test_everything_is_served_by_another_process_of_the_lowest_priority(make_view, graphs):
    with make_view(token=TOKEN, in_process=True) as view:
        view.give(3)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert fetched(view.viewer.url)[0] == 401
        status, png = fetched(view.viewer.url, "snapshot.png", **bearer)
        picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert status == 200
        assert np.array_equal(picture, overlay(view.newest.frame_rgb, view.newest.labels, graphs.classes))
        assert b"edgeseg_frames_captured_total 3.0" in fetched(view.viewer.url, "metrics", **bearer)[1]
        assert json.loads(fetched(view.viewer.url, "healthz", **bearer)[1])["results"] == 3
        pid = view.viewer.pid
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        assert TOKEN not in Path(f"/proc/{pid}/cmdline").read_text()
        assert TOKEN not in Path(f"/proc/{pid}/environ").read_text()


def test_page_is_shown_by_a_process_in_a_browser(make_view, tmp_path, ordinary_priority):
    with make_view(in_process=True) as view, chromium_page(tmp_path) as page:
        view.give(2)
        assert fetched(view.viewer.url, "healthz")[0] == 200
        page.open(view.viewer.url)
        page.until("document.getElementById('frame-index')?.textContent === '1'")
        view.give()
        page.until("document.getElementById('frame-index').textContent === '2'")
        assert page.complaints == []


def test_a_killed_server_is_logged_and_comes_back_while_the_loop_goes_on(make_view, quick, ordinary_priority, caplog):
    with make_view(in_process=True) as view, caplog.at_level(logging.WARNING):
        view.give()
        snapshot = fetched(view.viewer.url, "snapshot.png")
        killed = view.viewer.pid
        os.kill(killed, signal.SIGKILL)
        view.give(2)
        until(lambda: view.viewer.pid not in (killed, None))
        # What was counted before is not lost, and the last result is shown though no other has come.
        assert json.loads(fetched(view.viewer.url, "healthz")[1])["results"] == 3
        assert fetched(view.viewer.url, "snapshot.png")[0] == snapshot[0] == 200
    assert [record.getMessage() for record in caplog.records] == [
        "the live view's server has ended (signal 9); it is started again in 0.01 s"
    ]


def test_a_server_that_cannot_start_says_why_and_is_tried_until_it_can(
    make_view, quick, ordinary_priority, monkeypatch, caplog
):
    program = keeper._BEGIN
    monkeypatch.setattr(keeper, "_BEGIN", "raise SystemExit('there is no such module')")
    with caplog.at_level(logging.WARNING), make_view(in_process=True) as view:
        until(lambda: len(caplog.records) == 2)
        view.give()
        monkeypatch.setattr(keeper, "_BEGIN", program)
        assert fetched(view.viewer.url, "healthz")[0] == 200
    assert [record.getMessage() for record in caplog.records[:2]] == [
        f"the live view's server has ended (exit status 1, there is no such module); it is started again in {wait_s} s"
        for wait_s in (0.01, 0.02)
    ]


def test_closing_leaves_no_process_descriptor_or_thread(make_view, ordinary_priority):
    def view_and_close():
        with make_view(in_process=True) as view:
            until(lambda: view.viewer.pid is not None)
            ends = os.pidfd_open(view.viewer.pid)
            view.viewer.close()
            assert has_ended(ends)
            os.close(ends)

    def left():
        # The memory is given back with the view that had it.
        gc.collect()
        threads = [thread.name for thread in threading.enumerate() if "viewer" in thread.name]
        return len(os.listdir("/proc/self/fd")), threads

    view_and_close()
    until(lambda: left()[1] == [])
    before = left()
    view_and_close()
    until(lambda: left() == before)


def test_a_loop_that_hangs_is_told_and_the_server_ends_with_a_killed_process(script):
    process, url, ends = script
    process.send_signal(signal.SIGSTOP)
    until(lambda: fetched(url, "healthz")[0] == 503)
    assert b"edgeseg_seconds_since_result" in fetched(url, "metrics")[1]
    process.send_signal(signal.SIGCONT)
    until(lambda: fetched(url, "healthz")[0] == 200)
    process.kill()
    assert has_ended(ends)
    with pytest.raises(urllib.error.URLError):
        fetched(url, "healthz")


def test_ctrl_c_in_a_terminal_shows_the_users_traceback_alone(script):
    process, _, ends = script
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=START_S)
    assert has_ended(ends)
    assert said.count("Traceback") == 1
    assert "edgeseg-viewer" not in said


def test_server_imports_neither_networks_nor_their_runtimes():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
