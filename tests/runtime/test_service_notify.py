import json
import os
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from edgeseg.runtime.service_notify import ServiceNotifier, notifying
from support.waiting import threads_of_loops


@pytest.fixture
def manager(tmp_path):
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield SimpleNamespace(path=str(tmp_path / "notify"), told=lambda: told(listening))


def told(listening: socket.socket) -> list[str]:
    """Messages that have come so far."""
    listening.setblocking(False)
    messages = []
    try:
        while True:
            messages.append(listening.recv(4096).decode())
    except BlockingIOError:
        return messages


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def result(source_index: int) -> SimpleNamespace:
    return SimpleNamespace(source_index=source_index, configuration="swiftnet")


def test_the_first_result_makes_the_service_ready(manager):
    ServiceNotifier(manager.path).on_result(result(0))
    assert manager.told() == ["READY=1\nSTATUS=running swiftnet"]


def test_the_watchdog_is_fed_four_times_within_its_time_and_no_more(manager):
    clock = Clock()
    notifier = ServiceNotifier(manager.path, watchdog_s=8.0, clock=clock)
    for index in range(81):
        clock.now_s = index / 10
        notifier.on_result(result(index))
    assert manager.told()[1:] == ["WATCHDOG=1"] * 4


def test_labels_that_are_only_moved_on_are_no_sign_of_life(manager):
    clock = Clock()
    notifier = ServiceNotifier(manager.path, watchdog_s=8.0, clock=clock)
    for index in range(50):
        clock.now_s = float(index)
        notifier.on_result(result(0))
    assert manager.told() == ["READY=1\nSTATUS=running swiftnet"]


LOST = "WATCHDOG=1\nSTATUS=lost the camera, it is tried again"


def test_the_watchdog_is_fed_while_the_loop_waits_for_its_camera(manager):
    clock, loop = Clock(), SimpleNamespace(waits_for_camera=True)
    notifier = ServiceNotifier(manager.path, watchdog_s=8.0, clock=clock)
    notifier.on_result(result(0))
    for index in range(1, 61):
        clock.now_s = index / 10
        notifier.on_wait(loop)
    clock.now_s = 8.0
    notifier.on_result(result(1))
    assert manager.told()[1:] == [LOST, "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1\nSTATUS=running swiftnet"]


def test_the_watchdog_is_not_fed_when_a_step_hangs(manager):
    clock, loop = Clock(), SimpleNamespace(waits_for_camera=False)
    notifier = ServiceNotifier(manager.path, watchdog_s=8.0, clock=clock)
    notifier.on_result(result(0))
    clock.now_s = 9.0
    notifier.on_wait(loop)
    assert len(manager.told()) == 1


def test_the_loop_is_looked_after_until_the_block_ends(manager):
    asked = threading.Semaphore(0)

    class Loop:
        @property
        def waits_for_camera(self) -> bool:
            asked.release()
            return True

    notifier = ServiceNotifier(manager.path, watchdog_s=0.04)
    notifier.on_result(result(0))
    with notifier.watching(Loop()):
        assert all(asked.acquire(timeout=10) for _ in range(9))
    assert LOST in manager.told()
    assert threads_of_loops() == []


def test_a_start_that_waits_for_the_camera_gets_more_time(manager):
    notifier = ServiceNotifier(manager.path)
    notifier.starting("camera 0 cannot be opened")
    notifier.on_wait(SimpleNamespace(waits_for_camera=True))
    assert [line.partition("\n")[0] for line in manager.told()] == ["EXTEND_TIMEOUT_USEC=900000000"] * 2


def test_without_a_watchdog_only_readiness_is_told(manager):
    clock = Clock()
    notifier = ServiceNotifier(manager.path, clock=clock)
    for index in range(3):
        clock.now_s = 100.0 * index
        notifier.on_result(result(index))
    assert len(manager.told()) == 1


def test_the_end_is_told_whatever_ended_the_loop(manager):
    with pytest.raises(RuntimeError), notifying(None, ServiceNotifier(manager.path)):
        raise RuntimeError
    assert manager.told() == ["STOPPING=1"]


def test_nothing_changes_where_no_service_manager_asks():
    def shown(result):
        raise AssertionError

    assert ServiceNotifier.from_environment({}) is None
    with notifying(shown, None) as progress:
        assert progress is shown
    with notifying(None, None) as progress:
        assert progress is None


def test_results_are_shown_too(manager):
    seen = []
    with notifying(seen.append, ServiceNotifier(manager.path)) as progress:
        progress(result(3))
    assert [each.source_index for each in seen] == [3]


def test_the_watchdog_of_another_process_is_not_fed(manager):
    environment = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "8000000", "WATCHDOG_PID": str(os.getpid() + 1)}
    assert ServiceNotifier.from_environment(environment)._watchdog_s is None
    own = {**environment, "WATCHDOG_PID": str(os.getpid())}
    assert ServiceNotifier.from_environment(own)._watchdog_s == 8.0


def test_an_abstract_socket_is_reached():
    name = f"edgeseg-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        ServiceNotifier(f"@{name}").on_result(result(0))
        assert told(listening)[0].startswith("READY=1")


def test_a_manager_that_is_gone_does_not_stop_the_loop(tmp_path, caplog):
    ServiceNotifier(str(tmp_path / "nobody")).on_result(result(0))
    assert "the service manager cannot be told READY=1" in caplog.text


def test_run_tells_that_it_is_ready_alive_and_stopping(manager, bundle, tmp_path):
    environment = {**os.environ, "NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "400000"}
    command = [sys.executable, "-m", "edgeseg", "run", str(bundle.root), "--source", "street:32x48@30",
               "--configuration", "plain_32x48", "--seconds", "1", "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert json.loads(done.stdout)["results"] > 10
    messages = manager.told()
    assert messages[0].startswith("READY=1")
    assert messages[1:-1]
    assert set(messages[1:-1]) == {"WATCHDOG=1"}
    assert messages[-1] == "STOPPING=1"
