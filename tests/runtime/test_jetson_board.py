import time

import pytest

from edgeseg.runtime.jetson import board_facts as facts_module
from edgeseg.runtime.jetson.board_facts import board_facts
from edgeseg.runtime.jetson.board_files import (
    cpu_clocks,
    gpu_clock,
    is_jetson,
    over_current_events,
    rails_mw,
    throttle_alerts,
)
from edgeseg.runtime.jetson.board_monitor import LEAST_SAMPLES, BoardMonitor, watched_board
from edgeseg.runtime.jetson.power_mode import ClockRange
from support.jetson_root import write, write_board, write_tegrastats
from support.waiting import until

IDLE = (
    "RAM 2845/7486MB CPU [1%@729,0%@729] GR3D_FREQ 0%@[305] cpu@45C tj@46.5C VDD_IN 3462mW/3522mW VDD_SOC 1127mW/1127mW"
)
BUSY = (
    "RAM 2845/7486MB CPU [99%@1510,5%@729] GR3D_FREQ 99%@[612] cpu@60C tj@66.5C VDD_IN 9462mW/3522mW "
    "VDD_SOC 1527mW/1127mW"
)
SLOW_GPU = BUSY.replace("[612]", "[408]")
SLOW_CPU = BUSY.replace("99%@1510", "100%@960")


@pytest.fixture
def board(tmp_path):
    return write_board(tmp_path / "root")


@pytest.fixture
def monitor(board, tmp_path):
    """lines of tegrastats -> a monitor of this board that reads them."""

    def made(*lines: str) -> BoardMonitor:
        return BoardMonitor(root=board, command=[str(write_tegrastats(tmp_path / "tegrastats", lines))])

    return made


def watch(monitor: BoardMonitor, samples: int = 3 * LEAST_SAMPLES) -> BoardMonitor:
    with monitor:
        until(lambda: len(monitor._samples) >= samples)
    return monitor


def test_a_board_is_known_by_its_release_or_within_a_container_by_its_model(board):
    assert is_jetson(board)
    (board / "etc/nv_tegra_release").unlink()
    assert is_jetson(board)


def test_another_machine_is_no_board(tmp_path):
    write(tmp_path / "proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0")
    assert not is_jetson(tmp_path)
    assert not is_jetson(tmp_path / "nothing")


def test_rails_are_voltage_times_current(board):
    assert rails_mw(board) == {"VDD_IN": 3591, "VDD_CPU_GPU_CV": 521, "VDD_SOC": 1127}


def test_over_current_events_are_counted_by_cause(board):
    assert over_current_events(board) == {"oc1": 0, "oc2": 15, "oc3": 37}


def test_neither_a_fan_nor_a_governor_is_throttling(board):
    assert throttle_alerts(board) == []


def test_an_alert_that_is_on_is_throttling(board):
    write(board / "sys/class/thermal/cooling_device2/cur_state", 1)
    assert throttle_alerts(board) == ["gpu-throttle-alert"]


def test_clocks_are_those_of_the_gpu_and_the_cores_alone(board):
    assert gpu_clock(board) == ClockRange(306.0, 612.0, 306.0)
    assert cpu_clocks(board) == {"cpu0": ClockRange(729.6, 1510.4, 960.0)}


def test_nothing_is_told_where_the_files_are_missing_or_hold_nonsense(board, tmp_path):
    write(board / "sys/class/devfreq/17000000.gpu/cur_freq", "n/a")
    assert gpu_clock(board) is None
    for told in (rails_mw, over_current_events, throttle_alerts, cpu_clocks):
        assert not told(tmp_path / "nothing")


def test_facts_hold_mode_clocks_and_events(board, monkeypatch):
    monkeypatch.setattr(facts_module.os, "geteuid", lambda: 1000)
    asked = []

    def ask(command):
        asked.append(" ".join(command))
        return "NV Power Mode: 15W\n0\n"

    facts = board_facts(board, ask)
    assert facts["power_mode"] == {"name": "15W", "number": 0}
    assert facts["clocks"]["GPU"] == {"min_mhz": 306, "max_mhz": 612, "current_mhz": 306, "locked": False}
    assert facts["over_current_events"]["oc3"] == 37
    assert asked == ["nvpmodel -q"]


def test_root_asks_for_all_clocks(board, monkeypatch):
    monkeypatch.setattr(facts_module.os, "geteuid", lambda: 0)
    printed = {
        "nvpmodel -q": "NV Power Mode: 15W\n0\n",
        "jetson_clocks --show": "EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=3199000000 FreqOverride=1\n",
    }
    assert board_facts(board, lambda command: printed[" ".join(command)])["clocks"]["EMC"]["locked"] is True


def test_facts_leave_out_what_nobody_tells(board):
    assert "power_mode" not in board_facts(board, lambda command: None)


def test_there_are_no_facts_and_no_monitor_on_another_machine(tmp_path):
    def ask(command):
        raise AssertionError(command)

    assert board_facts(tmp_path, ask) == {}
    with watched_board(tmp_path) as nobody:
        assert nobody is None


def test_what_was_seen_is_told_by_zone_and_rail(monitor):
    facts = watch(monitor(IDLE, BUSY)).facts()
    assert facts["hottest_c"] == 66.5
    assert facts["hottest_by_zone_c"] == {"cpu": 60.0, "tj": 66.5}
    assert facts["highest_power_mw"] == 9462
    assert 3462 < facts["mean_power_mw"] < 9462
    assert set(facts["mean_power_by_rail_mw"]) == {"VDD_IN", "VDD_SOC"}
    assert "throttle_alerts" not in facts


def test_a_board_that_ran_as_its_mode_allows_is_not_throttled(monitor):
    assert watch(monitor(IDLE, BUSY)).throttled() is None


def test_events_before_the_measurement_do_not_count_and_those_meanwhile_do(monitor, board):
    watching = monitor(IDLE)
    with watching:
        write(board / "sys/class/hwmon/hwmon3/oc3_event_cnt", 40)
    assert watching.throttled() == "3 over-current events (oc3)"
    assert watching.facts()["over_current_events"] == {"oc3": 3}


def test_an_alert_that_was_on_for_a_while_is_remembered(monitor, board):
    state = board / "sys/class/thermal/cooling_device2/cur_state"
    watching = monitor(IDLE)
    with watching:
        write(state, 2)
        until(lambda: watching._alerts)
        write(state, 0)
    assert watching.throttled() == "gpu-throttle-alert was on"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (SLOW_GPU, "the GPU ran at 408 MHz under full load, its power mode allows 612"),
        (SLOW_CPU, "the CPU ran at 960 MHz under full load, its power mode allows 1510"),
    ],
)
def test_a_loaded_part_below_its_highest_clock_is_throttled(monitor, line, words):
    assert watch(monitor(line)).throttled() == words


def test_a_limit_that_was_lowered_meanwhile_hides_nothing(monitor, board):
    watching = monitor(SLOW_GPU)
    with watching:
        until(lambda: len(watching._samples) >= LEAST_SAMPLES)
        write(board / "sys/class/devfreq/17000000.gpu/max_freq", 408_000_000)
    assert "the GPU ran at 408 MHz" in watching.throttled()


def test_a_part_without_load_may_run_slowly(monitor):
    assert watch(monitor(IDLE)).throttled() is None


def test_a_gated_cluster_tells_no_clock(monitor):
    assert watch(monitor(BUSY.replace("[612]", "[612,0]"))).throttled() is None


def test_energy_of_a_step_is_the_power_while_the_timed_steps_ran(monitor):
    watching = monitor(BUSY)

    def turn(name):
        time.sleep(0.15)
        return [0.05, 0.05, 0.05]

    with watching:
        watching.timed(turn)("plain")
    assert watching.energy_mj("plain", 0.05) == pytest.approx(9462 * 0.05)
    assert watching.energy_mj("another", 0.05) is None


def test_energy_is_not_told_when_the_board_was_looked_at_too_seldom(monitor):
    watching = watch(monitor(BUSY))
    watching.timed(lambda name: [0.0])("plain")
    assert watching.energy_mj("plain", 0.05) is None


def test_the_sensors_are_read_where_there_is_no_tegrastats(board):
    watching = BoardMonitor(root=board, command=["/nonexistent/tegrastats"])
    with watching:
        until(lambda: len(watching._samples) >= 2)
    assert watching.facts()["mean_power_by_rail_mw"]["VDD_IN"] == 3591


def test_nothing_is_left_running_when_the_block_ends_with_an_error(monitor):
    watching = monitor(IDLE)
    with pytest.raises(KeyboardInterrupt), watching:
        raise KeyboardInterrupt
    assert watching._process.returncode is not None
    assert not watching._thread.is_alive()
