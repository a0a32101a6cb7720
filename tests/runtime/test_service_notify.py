import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from edgeseg.runtime.service_notify import ServiceNotifier, notifying


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


def test_without_a_watchdog_only_readiness_is_told(manager):
    clock = Clock()
    notifier = ServiceNotifier(manager.path, clock=clock)
    for index in range(3):
        clock.now_s = 100.0 * index
        notifier.on_result(result(index))
    assert len(manager.told()) == 1


def test_the_end_is_told_whatever_ended_the_loop(manager):
    with pytest.raises(RuntimeError), notifying(None, {"NOTIFY_SOCKET": manager.path}):
        raise RuntimeError
    assert manager.told() == ["STOPPING=1"]


def test_nothing_changes_where_no_service_manager_asks():
    def shown(result):
        raise AssertionError

    with notifying(shown, {}) as progress:
        assert progress is shown
    with notifying(None, {}) as progress:
        assert progress is None


def test_results_are_shown_too(manager):
    seen = []
    with notifying(seen.append, {"NOTIFY_SOCKET": manager.path}) as progress:
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
