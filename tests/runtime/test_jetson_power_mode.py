"""What boards really printed; where it was published is said above each."""

import pytest

from edgeseg.runtime.jetson.power_mode import ClockRange, PowerMode, parse_jetson_clocks, parse_nvpmodel

# Jetson AGX Orin, JetPack 5.1: notes on setting one up by github.com/catid
AGX_ORIN = """\
cpu0: Online=1 Governor=schedutil MinFreq=729600 MaxFreq=2201600 CurrentFreq=2201600 IdleStates: WFI=1 c7=1
cpu10: Online=1 Governor=schedutil MinFreq=729600 MaxFreq=2201600 CurrentFreq=1113600 IdleStates: WFI=1 c7=1
GPU MinFreq=306000000 MaxFreq=1300500000 CurrentFreq=306000000
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride=0
DLA0_CORE:   Online=1 MinFreq=0 MaxFreq=1600000000 CurrentFreq=1600000000
DLA0_FALCON: Online=1 MinFreq=0 MaxFreq=844800000 CurrentFreq=844800000
PVA0_AXI:  Online=1 MinFreq=0 MaxFreq=832000000 CurrentFreq=832000000
FAN Dynamic Speed control=active hwmon2_pwm1=55
NV Power Mode: MAXN
"""
# Jetson Orin Nano Super, JetPack 7.2: bring-up report of a course project on GitHub, 2026-09-19
ORIN_NANO_JETPACK_7 = """SOC family:tegra234  Machine:NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super
Online CPUs: 0-5, Offline CPUs:
cpu0:  Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=960000 IdleStates: WFI=1 c7=1
cpu5:  Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=1267200 IdleStates: WFI=1 c7=1
GPU MinFreq=306000000 MaxFreq=918000000 CurrentFreq=306000000
Active GPU TPCs: 4
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=665600000
FAN Dynamic Speed Control=nvfancontrol hwmon0_pwm1=60
NV Power Mode: 25W
"""
# Jetson Orin Nano Super after jetson_clocks: github.com/osnava/learnJetson, runbook of its issue 6
ORIN_NANO_LOCKED = """
cpu0:  Online=1 Governor=schedutil MinFreq=1728000 MaxFreq=1728000 CurrentFreq=1728000 IdleStates: WFI=0 c7=0
GPU MinFreq=1020000000 MaxFreq=1020000000 CurrentFreq=1020000000
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=3199000000 FreqOverride=1
FAN Dynamic Speed Control=disabled hwmon0_pwm1=255
NV Power Mode: MAXN_SUPER
"""


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXN_SUPER\n2\n", PowerMode("MAXN_SUPER", 2)),
        ("NV Power Mode: 25W\n1\n", PowerMode("25W", 1)),
        # AGX Xavier, JetPack 4.3: github.com/open-rdc/orne-box/issues/16
        ("NV Fan Mode:quiet\nNV Power Mode: MAXN\n0\n", PowerMode("MAXN", 0)),
        # Made of parts: the warning comes before the mode where no fan mode is set
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W_6CORE\n2\n", PowerMode("MODE_15W_6CORE", 2)),
        ("NV Power Mode: MAXN\n", PowerMode("MAXN", None)),
    ],
)
def test_the_power_mode_has_a_name_and_where_told_a_number(text, mode):
    assert parse_nvpmodel(text) == mode


@pytest.mark.parametrize("text", ["", "NVPM ERROR: Permission denied\n3\n"])
def test_there_is_no_power_mode_when_none_is_named(text):
    assert parse_nvpmodel(text) is None


def test_clocks_are_in_mhz_whatever_unit_they_are_printed_in():
    clocks = parse_jetson_clocks(AGX_ORIN)
    assert clocks["cpu10"] == ClockRange(729.6, 2201.6, 1113.6)
    assert clocks["GPU"] == ClockRange(306.0, 1300.5, 306.0)
    assert clocks["DLA0_CORE"] == ClockRange(0.0, 1600.0, 1600.0)
    assert set(clocks) == {"cpu0", "cpu10", "GPU", "EMC", "DLA0_CORE", "DLA0_FALCON", "PVA0_AXI"}


def test_lines_without_online_and_override_are_read_too():
    clocks = parse_jetson_clocks(ORIN_NANO_JETPACK_7)
    assert clocks["cpu5"].current_mhz == 1267.2
    assert clocks["EMC"].max_mhz == 3199.0


def test_clocks_are_locked_when_they_cannot_move():
    assert {name: clock.is_locked for name, clock in parse_jetson_clocks(ORIN_NANO_LOCKED).items()} == {
        "cpu0": True,
        "GPU": True,
        "EMC": True,
    }
    assert not any(clock.is_locked for clock in parse_jetson_clocks(ORIN_NANO_JETPACK_7).values())


def test_text_of_another_program_holds_no_clocks():
    assert parse_jetson_clocks("Error! unsupported SOC\n") == {}
