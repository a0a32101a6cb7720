"""Lines that boards really printed; where each was published is said above it."""

import pytest

from edgeseg.runtime.jetson.tegrastats import CoreLoad, parse_tegrastats, total_mw

# Jetson Orin Nano 8 GB, JetPack 6.2: github.com/rbonghi/jetson_stats/issues/624
ORIN_NANO = (
    "05-15-2025 18:30:28 RAM 6982/7620MB (lfb 5x1MB) SWAP 2640/16384MB (cached 202MB) CPU [97%@1984,95%@1984,95%@1984,"
    "91%@1984,88%@1984,93%@247] EMC_FREQ 18%@3199 GR3D_FREQ 84%@[713] NVENC 1%@115 NVDEC 40%@115 NVJPG off NVJPG1 off "
    "VIC 31%@115 OFA off NVDLA0 off PVA0_FREQ off APE 174 cv0@63.031C cpu@65.562C soc2@64.156C soc0@63.031C "
    "cv1@62.937C gpu@63.5C tj@65.562C soc1@64.718C cv2@60.875C VDD_IN 17946mW/15710mW VDD_CPU_GPU_CV 8896mW/7585mW "
    "VDD_SOC 3923mW/3515mW"
)
# Jetson Orin Nano Super, JetPack 7.2 (L4T R39.2): bring-up report of a course project on GitHub, 2026-09-19
ORIN_NANO_JETPACK_7 = (
    "09-19-2026 13:33:03 RAM 2845/7486MB (lfb 33x4MB) CPU [1%@729,0%@729,0%@729,0%@729,0%@729,0%@729] EMC_FREQ 3%@665 "
    "GR3D_FREQ 0%@[305] NVDEC0 off NVJPG0 off NVJPG1 off VIC off OFA off APE 200 cpu@45.375C/45.812C "
    "soc2@44.687C/44.843C soc0@46.25C/46.25C gpu@46.562C/46.843C tj@46.562C/46.843C soc1@46.281C/46.281C "
    "VDD_IN 3462mW/3522mW/3582mW VDD_CPU_GPU_CV 442mW/483mW/523mW VDD_SOC 1127mW/1127mW/1127mW"
)
# Jetson AGX Orin 64 GB, L4T R36.4.4: tests of github.com/lesomnus/tegra-exporter
AGX_ORIN = (
    "05-09-2026 18:42:06 RAM 18207/62841MB (lfb 466x4MB) SWAP 86/31420MB (cached 0MB) CPU [14%@2188,5%@2112,8%@2035,"
    "14%@2201,46%@1267,47%@1267,2%@1267,10%@1267,4%@1036,5%@1036,6%@1036,10%@1036] EMC_FREQ 3%@2133 GR3D_FREQ 0%@[0,0] "
    "NVENC 79%@166 NVDEC off NVJPG off NVJPG1 off VIC 36%@115 OFA off NVDLA0 off NVDLA1 off PVA0_FREQ off APE 174 "
    "cpu@52.562C soc2@48.437C soc0@49.093C tj@52.562C soc1@49.656C VDD_GPU_SOC 2412mW/2412mW VDD_CPU_CV 1607mW/1607mW "
    "VIN_SYS_5V0 4707mW/4707mW"
)
# Jetson AGX Orin, JetPack 5.1: notes on setting one up by github.com/catid, 2023-04-24
AGX_ORIN_JETPACK_5 = (
    "04-24-2023 00:01:24 RAM 1282/62795MB (lfb 15152x4MB) SWAP 0/31398MB (cached 0MB) CPU [0%@729,0%@729,0%@729,"
    "0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@0 GR3D2_FREQ 0%@0 "
    "VIC_FREQ 729 APE 174 CV0@-256C CPU@42.593C Tboard@32C SOC2@39.343C Tdiode@33.25C SOC0@39.375C CV1@-256C GPU@-256C "
    "tj@42.593C SOC1@40.468C CV2@-256C VDD_GPU_SOC 2399mW/2399mW VDD_CPU_CV 400mW/400mW VIN_SYS_5V0 4032mW/4032mW "
    "NC 0mW/0mW VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
# Jetson AGX Orin with four cores off and a rail below zero: comment of a plotting script on GitHub, 2024-03-17
AGX_ORIN_IDLE = (
    "03-17-2024 18:54:10 RAM 10239/62841MB (lfb 442x4MB) SWAP 1/31421MB (cached 0MB) CPU [0%@1728,0%@1728,0%@1728,"
    "0%@1728,0%@1420,0%@1420,0%@1420,0%@1420,off,off,off,off] GR3D_FREQ 0% cpu@37.5C tboard@27C soc2@34.562C "
    "tdiode@27.5C soc0@34.531C tj@37.5C soc1@33.656C VDD_GPU_SOC 1592mW/1592mW VDD_CPU_CV -398mW/-398mW "
    "VIN_SYS_5V0 2624mW/2624mW VDDQ_VDD2_1V8AO 403mW/403mW"
)
# Jetson AGX Thor, L4T R38.4: tests of github.com/lesomnus/tegra-exporter
THOR = (
    "05-17-2026 10:00:33 RAM 4280/125773MB (lfb 29x4MB) SWAP 0/2048MB (cached 0MB) CPU [0%@972,0%@972,0%@972,0%@972,"
    "1%@972,0%@972,1%@972,0%@972,0%@2601,17%@2601,1%@972,9%@972,0%@972,1%@972] EMC_FREQ 0%@665 GR3D_FREQ @[0,0,0] "
    "NVENC0_FREQ @0 NVENC1_FREQ @0 NVDEC0_FREQ @0 NVDEC1_FREQ @0 NVJPG0_FREQ @0 VIC off OFA_FREQ @0 PVA0_FREQ off "
    "APE 300 cpu@35.25C tj@36.031C soc012@36.062C soc345@34.5C VDD_GPU 0mW/0mW VDD_CPU_SOC_MSS 4923mW/4544mW "
    "VIN_SYS_5V0 4327mW/4227mW"
)
# Jetson AGX Thor developer kit, L4T R38.4: notes on the fields of tegrastats on GitHub, 2026-04-21
THOR_WITH_INPUT = (
    "04-21-2026 15:50:52 RAM 105265/125772MB (lfb 34x4MB) CPU [0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,1%@972,"
    "0%@972,0%@972,0%@972,0%@972,8%@972,0%@972,0%@972] EMC_FREQ 0%@2750 GR3D_FREQ @[314,314,314] NVENC0_FREQ @314 "
    "NVENC1_FREQ @314 NVDEC0_FREQ @314 NVDEC1_FREQ @314 NVJPG0_FREQ @314 VIC off OFA_FREQ @315 PVA0_FREQ off APE 300 "
    "cpu@37.343C tj@38.875C soc012@37.468C gpu@38.875C soc345@37.406C VDD_GPU 1962mW/1962mW "
    "VDD_CPU_SOC_MSS 5887mW/5887mW VIN_SYS_5V0 5635mW/5635mW VIN 19780mW/19780mW"
)
# Jetson AGX Xavier, JetPack 4.2: github.com/martinkersner/gtop/pull/7
AGX_XAVIER = (
    "RAM 14700/15692MB (lfb 3x2MB) SWAP 898/8192MB (cached 23MB) CPU [0%@1190,0%@1190,0%@1190,0%@1190,0%@1190,0%@1190,"
    "0%@1190,0%@1190] EMC_FREQ 0% GR3D_FREQ 0% AO@30C GPU@30.5C Tboard@31C Tdiode@32C AUX@30.5C CPU@31.5C "
    "thermal@30.8C PMIC@100C GPU 463/463 CPU 618/618 SOC 2936/2936 CV 0/0 VDDRQ 309/309 SYS5V 3306/3306"
)
# Jetson Xavier NX at full load, JetPack 4.6: stress test of the MODULE-X in its maker's documentation (ai-blox)
XAVIER_NX = (
    "RAM 1749/7772MB (lfb 377x4MB) SWAP 0/3886MB (cached 0MB) CPU [100%@1420,100%@1420,100%@1420,100%@1420,100%@1420,"
    "100%@1420] EMC_FREQ 0% GR3D_FREQ 99% AO@51C GPU@53.5C PMIC@100C AUX@51C CPU@53C thermal@52.2C VDD_IN 14664/13950 "
    "VDD_CPU_GPU_CV 10874/10241 VDD_SOC 1442/1412"
)
# Jetson TX2, JetPack 3: github.com/gustavz/realtime_object_detection/issues/24
TX2 = (
    "RAM 1685/7854MB (lfb 1044x4MB) SWAP 278/8192MB (cached 23MB) CPU [0%@1303,0%@345,0%@345,0%@1419,0%@1420,0%@1421] "
    "EMC_FREQ 0%@1866 GR3D_FREQ 0%@140 APE 150 MTS fg 1% bg 8% BCPU@41C MCPU@41C GPU@39C PLL@41C Tboard@37C "
    "Tdiode@37.25C PMIC@100C thermal@39.9C VDD_IN 1931/1931 VDD_CPU 231/231 VDD_GPU 154/154 VDD_SOC 385/385 "
    "VDD_WIFI 38/38 VDD_DDR 326/326"
)
LINES = {
    "Orin Nano": ORIN_NANO, "Orin Nano, JetPack 7": ORIN_NANO_JETPACK_7, "AGX Orin": AGX_ORIN,
    "AGX Orin, JetPack 5": AGX_ORIN_JETPACK_5, "AGX Orin, idle": AGX_ORIN_IDLE, "Thor": THOR,
    "Thor with VIN": THOR_WITH_INPUT, "AGX Xavier": AGX_XAVIER, "Xavier NX": XAVIER_NX, "TX2": TX2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("board", "used", "total", "swap"),
    [
        ("Orin Nano", 6982, 7620, 2640),
        ("Orin Nano, JetPack 7", 2845, 7486, None),
        ("Thor with VIN", 105265, 125772, None),
        ("AGX Xavier", 14700, 15692, 898),
    ],
)
def test_memory_is_told_with_or_without_swap(board, used, total, swap):
    sample = parse_tegrastats(LINES[board])
    assert (sample.ram_used_mb, sample.ram_total_mb, sample.swap_used_mb) == (used, total, swap)


@pytest.mark.parametrize(
    ("board", "percent", "mhz"),
    [
        ("Orin Nano", 84, (713,)),
        ("Orin Nano, JetPack 7", 0, (305,)),
        ("AGX Orin", 0, (0, 0)),
        ("AGX Orin, JetPack 5", 0, (0,)),
        ("AGX Orin, idle", 0, ()),
        ("Thor with VIN", None, (314, 314, 314)),
        ("Xavier NX", 99, ()),
        ("TX2", 0, (140,)),
    ],
)
def test_load_and_clocks_of_the_gpu_come_in_five_forms(board, percent, mhz):
    sample = parse_tegrastats(LINES[board])
    assert (sample.gpu_percent, sample.gpu_mhz) == (percent, mhz)


def test_cores_have_load_and_clock():
    assert parse_tegrastats(ORIN_NANO).cores[-1] == CoreLoad(93, 247)
    assert len(parse_tegrastats(AGX_ORIN).cores) == 12


def test_a_core_that_is_off_is_none():
    assert parse_tegrastats(AGX_ORIN_IDLE).cores[7:] == (CoreLoad(0, 1420), None, None, None, None)


def test_memory_bandwidth_is_a_share():
    assert parse_tegrastats(ORIN_NANO).emc_percent == 18
    assert parse_tegrastats(AGX_ORIN_IDLE).emc_percent is None


def test_a_sensor_that_is_off_tells_no_temperature():
    zones = parse_tegrastats(AGX_ORIN_JETPACK_5).temperatures_c
    assert "gpu" not in zones
    assert zones["tj"] == 42.593
    assert min(zones.values()) > 0


def test_of_a_temperature_and_its_maximum_the_first_is_now():
    assert parse_tegrastats(ORIN_NANO_JETPACK_7).temperatures_c["gpu"] == 46.562


@pytest.mark.parametrize(("board", "hottest"), [("Xavier NX", 53.5), ("AGX Xavier", 32.0), ("Orin Nano", 65.562)])
def test_the_hottest_zone_is_never_the_one_without_a_sensor(board, hottest):
    assert parse_tegrastats(LINES[board]).hottest_c == hottest


@pytest.mark.parametrize(
    ("board", "rails"),
    [
        ("Orin Nano", {"VDD_IN": 17946, "VDD_CPU_GPU_CV": 8896, "VDD_SOC": 3923}),
        ("Orin Nano, JetPack 7", {"VDD_IN": 3462, "VDD_CPU_GPU_CV": 442, "VDD_SOC": 1127}),
        ("AGX Orin, JetPack 5", {"VDD_GPU_SOC": 2399, "VDD_CPU_CV": 400, "VIN_SYS_5V0": 4032, "VDDQ_VDD2_1V8AO": 301}),
        ("AGX Orin, idle", {"VDD_GPU_SOC": 1592, "VDD_CPU_CV": -398, "VIN_SYS_5V0": 2624, "VDDQ_VDD2_1V8AO": 403}),
        ("AGX Xavier", {"GPU": 463, "CPU": 618, "SOC": 2936, "CV": 0, "VDDRQ": 309, "SYS5V": 3306}),
        ("Xavier NX", {"VDD_IN": 14664, "VDD_CPU_GPU_CV": 10874, "VDD_SOC": 1442}),
        ("Thor", {"VDD_GPU": 0, "VDD_CPU_SOC_MSS": 4923, "VIN_SYS_5V0": 4327}),
    ],
)
def test_rails_tell_the_power_now_and_nothing_else_is_one(board, rails):
    assert parse_tegrastats(LINES[board]).rails_mw == rails


@pytest.mark.parametrize(
    ("board", "power"),
    [
        ("Orin Nano", 17946),
        ("Xavier NX", 14664),
        ("Thor with VIN", 19780),
        ("AGX Orin, JetPack 5", 2399 + 400 + 4032),
        ("AGX Xavier", 463 + 618 + 2936 + 309 + 3306),
        ("TX2", 1931),
    ],
)
def test_the_boards_power_is_that_of_its_input_or_the_sum_of_rails_of_their_own(board, power):
    assert parse_tegrastats(LINES[board]).total_mw == power


def test_no_rails_are_no_power():
    assert total_mw({}) is None


@pytest.mark.parametrize("line", ["", "tegrastats: command not found", "Cannot open /dev/nvmap", "RAM"])
def test_another_line_is_none(line):
    assert parse_tegrastats(line) is None


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_a_line_that_is_cut_anywhere_does_no_harm(line):
    for end in range(len(line)):
        sample = parse_tegrastats(line[:end])
        assert sample is None or sample.ram_total_mb >= 0
