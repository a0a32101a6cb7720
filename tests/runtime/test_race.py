import random

import pytest

from edgeseg.metrics.latency_aware import AccuracyTable
from edgeseg.metrics.rated_table import RatedTable
from edgeseg.runtime.race import Contender, Race


def contender(name: str, miou: tuple[float, ...], macs: float = 1.0) -> Contender:
    return Contender(name, macs, RatedTable(AccuracyTable(miou), 10.0, 10.0))


def constant(latencies_s: dict[str, float], calls: list[str] | None = None):
    def turn(name: str) -> list[float]:
        if calls is not None:
            calls.append(name)
        return [latencies_s[name]] * 2

    return turn


def winner(contenders, outcomes) -> str:
    tables = {entry.name: entry.table for entry in contenders}
    return max(
        (name for name in outcomes if outcomes[name].skipped is None),
        key=lambda name: (tables[name].streaming(outcomes[name].samples_s), name),
    )


def test_a_contender_drops_out_when_its_best_entry_is_below_the_best_so_far():
    contenders = [contender("good", (0.6, 0.5, 0.4)), contender("poor", (0.45, 0.44, 0.43))]
    outcomes = Race(contenders, constant({"good": 0.05, "poor": 0.01}), samples=6).run()
    assert outcomes["good"].skipped is None
    assert len(outcomes["good"].samples_s) == 6
    assert outcomes["poor"].skipped == (
        "cannot win: its fastest step, 10.0 ms, allows 0.440 at most, good reaches 0.500"
    )
    assert len(outcomes["poor"].samples_s) == 2


def test_a_slow_contender_stays_when_a_later_entry_of_its_table_is_high():
    # An anticipating network can be better late than in time.
    contenders = [contender("plain", (0.5, 0.5, 0.5, 0.5)), contender("ahead", (0.3, 0.3, 0.55, 0.3))]
    outcomes = Race(contenders, constant({"plain": 0.05, "ahead": 0.05}), samples=4).run()
    assert outcomes["ahead"].skipped is None


def test_everyone_is_measured_in_full_when_exhaustive():
    contenders = [contender("good", (0.6, 0.5)), contender("poor", (0.1, 0.1))]
    outcomes = Race(contenders, constant({"good": 0.05, "poor": 0.01}), samples=6, exhaustive=True).run()
    assert [len(outcome.samples_s) for outcome in outcomes.values()] == [6, 6]


def test_turns_are_interleaved_round_by_round():
    calls: list[str] = []
    contenders = [contender("a", (0.5, 0.5)), contender("b", (0.5, 0.5)), contender("c", (0.5, 0.5))]
    Race(contenders, constant({"a": 0.01, "b": 0.01, "c": 0.01}, calls), samples=6).run()
    assert [set(calls[i : i + 3]) for i in (0, 3, 6)] == [{"a", "b", "c"}] * 3


def test_the_promising_ones_run_first_when_macs_tell_their_latency():
    calls: list[str] = []
    tables = {"small": (0.3, 0.3, 0.3), "middle": (0.6, 0.5, 0.4), "large": (0.65, 0.6, 0.2)}
    contenders = [contender(name, tables[name], macs) for name, macs in (("large", 20), ("middle", 5), ("small", 1))]
    # small takes 0.01 s, so large is expected at 0.2 s (k = 2: .2) and middle at 0.05 s (k = 1: .5).
    Race(contenders, constant({"small": 0.01, "middle": 0.05, "large": 0.2}, calls), samples=2).run()
    assert calls[:3] == ["small", "middle", "large"]


def test_one_who_dropped_out_comes_back_when_the_leader_falls():
    leader = iter([[0.05, 0.05], [0.25, 0.25], [0.25, 0.25]])

    def turn(name: str) -> list[float]:
        return next(leader) if name == "leader" else [0.05, 0.05]

    contenders = [contender("leader", (0.6, 0.6, 0.1, 0.1), 1), contender("second", (0.5, 0.5, 0.5), 2)]
    outcomes = Race(contenders, turn, samples=6).run()
    assert outcomes["second"].skipped is None
    assert len(outcomes["second"].samples_s) == 6
    assert winner(contenders, outcomes) == "second"


def test_one_without_a_table_is_measured_in_full():
    contenders = [contender("good", (0.6, 0.5)), Contender("unknown", 1.0, None)]
    outcomes = Race(contenders, constant({"good": 0.05, "unknown": 0.9}), samples=4).run()
    assert len(outcomes["unknown"].samples_s) == 4


def test_progress_ends_at_one():
    shares: list[float] = []
    contenders = [contender("good", (0.6, 0.5)), contender("poor", (0.1, 0.1))]
    turn = constant({"good": 0.05, "poor": 0.01})
    Race(contenders, turn, samples=5, progress=lambda _, share: shares.append(share)).run()
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


@pytest.mark.parametrize("seed", range(60))
def test_skipping_never_changes_the_winner_when_the_first_turn_held_the_fastest_step(seed):
    rng = random.Random(seed)
    contenders, recorded = [], {}
    for index in range(6):
        start = rng.uniform(0.3, 0.7)
        miou = tuple(max(0.0, start - k * rng.uniform(0, 0.08)) for k in range(6))
        contenders.append(contender(f"c{index}", miou, rng.uniform(1, 50)))
        fastest = rng.uniform(0.01, 0.45)
        rest = [fastest * (1 + rng.expovariate(4)) for _ in range(19)]
        recorded[f"c{index}"] = [fastest, *rest]

    def replay():
        position = dict.fromkeys(recorded, 0)

        def turn(name: str) -> list[float]:
            begin = position[name]
            position[name] += 4
            return recorded[name][begin : begin + 4]

        return turn

    skipping = Race(contenders, replay(), samples=20).run()
    exhaustive = Race(contenders, replay(), samples=20, exhaustive=True).run()
    assert winner(contenders, skipping) == winner(contenders, exhaustive)
    assert sum(len(outcome.samples_s) for outcome in skipping.values()) < 6 * 20


def family(table: tuple[float, ...], moved: tuple[float, ...], name: str, macs: float = 1.0) -> list[Contender]:
    plain = contender(name, table, macs)
    return [plain, Contender(f"{name} moved", macs, RatedTable(AccuracyTable(moved), 10.0, 10.0), sibling=name)]


def test_one_that_cannot_win_even_at_its_siblings_latency_takes_no_turn():
    calls: list[str] = []
    good = family((0.6, 0.5, 0.4), (0.6, 0.59, 0.58), "good")
    slow = family((0.6, 0.5, 0.4, 0.3), (0.6, 0.59, 0.55, 0.5), "slow", macs=9.0)
    latencies = {"good": 0.05, "good moved": 0.06, "slow": 0.25, "slow moved": 0.26}
    outcomes = Race([*good, *slow], constant(latencies, calls), samples=4).run()
    assert "slow moved" not in calls
    assert outcomes["slow moved"].samples_s == ()
    assert outcomes["slow moved"].skipped == (
        "cannot win: its network alone, 250.0 ms, allows 0.500 at most, good moved reaches 0.590"
    )


def test_one_that_took_no_turn_is_measured_after_all_when_the_leader_falls():
    leader = iter([[0.05, 0.05], [0.25, 0.25], [0.25, 0.25]])

    def turn(name: str) -> list[float]:
        return next(leader) if name == "leader" else [0.05, 0.05]

    contenders = [contender("leader", (0.6, 0.6, 0.1, 0.1), 1), *family((0.4, 0.4), (0.5, 0.5), "second", 2)]
    outcomes = Race(contenders, turn, samples=6).run()
    assert len(outcomes["second moved"].samples_s) == 6


def test_everyone_takes_turns_when_exhaustive():
    good, slow = family((0.6, 0.5), (0.6, 0.59), "good"), family((0.2, 0.1), (0.2, 0.1), "slow")
    latencies = dict.fromkeys(("good", "good moved", "slow", "slow moved"), 0.05)
    outcomes = Race([*good, *slow], constant(latencies), samples=4, exhaustive=True).run()
    assert [len(outcome.samples_s) for outcome in outcomes.values()] == [4] * 4


def test_the_one_without_compensation_runs_before_its_family():
    calls: list[str] = []
    contenders = family((0.5, 0.1), (0.5, 0.5), "a")[::-1] + family((0.5, 0.4), (0.5, 0.45), "b")[::-1]
    Race(contenders, constant(dict.fromkeys(("a", "a moved", "b", "b moved"), 0.05), calls), samples=2).run()
    assert calls.index("a") < calls.index("a moved")
    assert "b moved" not in calls or calls.index("b") < calls.index("b moved")


def test_one_with_a_fault_does_not_hold_the_others_out():
    contenders = [contender("faulty", (0.9, 0.9), 1), contender("sound", (0.5, 0.5), 2)]

    def fault(name: str, is_full: bool) -> str | None:
        return "its flow cannot keep up" if name == "faulty" and is_full else None

    outcomes = Race(contenders, constant({"faulty": 0.05, "sound": 0.05}), samples=6, fault=fault).run()
    assert outcomes["faulty"].skipped == "its flow cannot keep up"
    assert outcomes["sound"].skipped is None
    assert len(outcomes["sound"].samples_s) == 6


def test_the_prediction_is_made_anew_only_for_the_one_that_was_measured(monkeypatch):
    predicted: list[int] = []
    streaming = RatedTable.streaming
    monkeypatch.setattr(RatedTable, "streaming", lambda self, s: predicted.append(len(s)) or streaming(self, s))
    contenders = [contender("a", (0.5, 0.5)), contender("b", (0.5, 0.5))]
    calls: list[str] = []
    Race(contenders, constant({"a": 0.01, "b": 0.01}, calls), samples=6).run()
    assert len(predicted) == len(calls)


def test_the_best_without_compensation_is_measured_in_full_beside_the_winner():
    good, poor = family((0.6, 0.5), (0.6, 0.59), "good"), family((0.5, 0.4), (0.5, 0.45), "poor")
    latencies = dict.fromkeys(("good", "good moved", "poor", "poor moved"), 0.05)
    outcomes = Race([*good, *poor], constant(latencies), samples=6).run()
    assert {name for name, outcome in outcomes.items() if outcome.skipped is None} == {"good", "good moved"}
    assert "good reaches 0.500" in outcomes["poor"].skipped
