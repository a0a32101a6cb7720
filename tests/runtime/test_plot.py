"""Plots of a pick, as matplotlib lays them out: what stands where, and that names cover nothing."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edgeseg.bundle import BundleConfiguration, Candidate
from edgeseg.config import Configuration
from edgeseg.device_profile import DeviceProfile
from edgeseg.runtime.pick import Pick, PickRow
from edgeseg.token_plan import TokenPlan

pytest.importorskip("matplotlib", reason="plots need matplotlib")

from edgeseg.runtime.plot import draw_pick

Draw = Callable[..., Any]


def vit(plan: str | None, **knobs: Any) -> Configuration:
    values = {"network": "segmenter_ti", "size_hw": (192, 256), **knobs}
    return Configuration(
        method=None if plan is None else "pause", plan=None if plan is None else TokenPlan.parse(plan), **values
    )


def row(
    knobs: Configuration, p50_ms: float, p90_ms: float, miou: float, lamiou: float, way: str = "none", **facts: Any
) -> PickRow:
    name = knobs.name if way == "none" else f"{knobs.name} {way}"
    return PickRow(
        name=name, configuration=knobs.name, compensation=way, p50_ms=p50_ms, p90_ms=p90_ms, p99_ms=p90_ms, offset=1,
        miou=miou, streaming_lamiou=lamiou, expected_lamiou=lamiou, median_lamiou=lamiou, latency_tax=miou - lamiou,
        is_bound=False, mean_age_ms=80.0, steps_per_s=15.0, samples=100, **facts,
    )  # fmt: skip


def pick_of(rows: Sequence[PickRow], knobs: Sequence[Configuration], fps: float = 15.0) -> Pick:
    chosen = next(each for each in knobs if each.name == rows[0].configuration)
    candidate = Candidate(BundleConfiguration(chosen, {}, "step", ("step",), (), "d"))
    profile = DeviceProfile("cpu", {}, "b", "d", fps, False, None, 1, (), "2026-01-01", "edgeseg profile")
    return Pick(candidate, tuple(rows), fps, "streaming", "", (), profile)


@pytest.fixture
def draw() -> Draw:
    """(rows, knobs, fps, front) -> the figure, laid out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def made(
        rows: Sequence[PickRow], knobs: Sequence[Configuration], fps: float = 15.0, front: Sequence[str] = ()
    ) -> Any:
        figure = Figure(figsize=(9, 5.8), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        draw_pick(figure, pick_of(rows, knobs, fps), {each.name: each for each in knobs}, front=front)
        figure.draw_without_rendering()
        return figure

    return made


PLANS = [vit("3:0.2,7:0.2"), vit("3:0.2,7:0.3"), vit("3:0.2,7:0.8"), vit("3:0.4,5:0.3"), vit("3:0.4,5:0.3,7:0.2"),
         vit(None)]  # fmt: skip


@pytest.fixture
def tuned() -> list[PickRow]:
    """Token plans as tuning found them once: all within a frame, their LAmIoU far below their mIoU without delay."""
    figures = [(16.2, 19.4, 0.5510, 0.5396), (15.7, 20.1, 0.5511, 0.5396), (13.4, 16.0, 0.5505, 0.5391),
               (12.2, 16.1, 0.5497, 0.5381), (11.8, 14.2, 0.5489, 0.5375), (20.0, 28.0, 0.5497, 0.5386)]  # fmt: skip
    return [row(knobs, *each) for knobs, each in zip(PLANS, figures, strict=True)]


def convolutional(height: int, stride: int) -> Configuration:
    return Configuration("swiftnet_r18", (height, height * 4 // 3), width=0.25, labels_stride=stride)


SIZES = [convolutional(height, stride) for height in (264, 396, 540) for stride in (1, 4)]


@pytest.fixture
def compensated() -> list[PickRow]:
    """3 sizes at 2 strides, each as it comes and moved by two flows: 18 points, many of them close together."""
    rows = []
    for place, knobs in enumerate(SIZES):
        at_ms, miou = 5.0 + 4.2 * place, 0.624 + 0.012 * place - 0.02 * (knobs.labels_stride == 4)
        rows.append(row(knobs, at_ms, 1.2 * at_ms, miou, miou - 0.04))
        for divisor in (2, 1):
            way, moved_ms = f"late-warp+extrapolate_dis-ultrafast_d{divisor}", at_ms + 2.0 + 2.5 * (divisor == 1)
            rows.append(row(knobs, moved_ms, 1.2 * moved_ms, miou, miou - 0.006 + 0.001 / divisor, way))
    return sorted(rows, key=lambda each: -each.streaming_lamiou)


def names(figure: Any) -> dict[str, Any]:
    """What stands beside points -> its text."""
    from matplotlib.text import Annotation

    return {each.get_text(): each for axes in figure.axes for each in axes.texts if isinstance(each, Annotation)}


def box(figure: Any, text: Any) -> Any:
    """Of the words alone, in pixels, a little smaller than they are."""
    from matplotlib.text import Text

    return Text.get_window_extent(text, figure.canvas.get_renderer()).padded(-1.0)


def drawn_places(figure: Any) -> np.ndarray:
    """Pixels float `(n, 2)` along all lines and markers in the axes that bear the names."""
    axes, places = figure.axes[-1], []
    for line in axes.get_lines():
        if line.get_transform().contains_branch(axes.transData) and len(line.get_xdata()):
            ends = line.get_transform().transform(np.column_stack([line.get_xdata(), line.get_ydata()]))
            ends = np.concatenate([ends, ends[-1:]])
            places += [np.linspace(begin, end, 200) for begin, end in pairwise(ends)]
    return np.concatenate(places)


@pytest.mark.parametrize("which", ["tuned", "compensated"])
def test_names_cover_no_other_name_and_nothing_that_is_drawn(
    which: str, draw: Draw, request: pytest.FixtureRequest
) -> None:
    rows = request.getfixturevalue(which)
    figure = draw(rows, PLANS if which == "tuned" else SIZES)
    boxes = {name: box(figure, text) for name, text in names(figure).items()}
    places = drawn_places(figure)
    assert len(boxes) >= min(6, len(rows))
    for name, each in boxes.items():
        assert not [other for other, box in boxes.items() if other != name and each.overlaps(box)], name
        inside = (places > (each.x0, each.y0)).all(axis=1) & (places < (each.x1, each.y1)).all(axis=1)
        assert not inside.any(), name
        assert figure.axes[-1].get_window_extent().contains(each.x0, each.y0), name


def test_no_leader_runs_through_another_name(compensated: list[PickRow], draw: Draw) -> None:
    figure = draw(compensated, SIZES)
    boxes = {name: box(figure, text) for name, text in names(figure).items()}
    for name, text in names(figure).items():
        point, own = figure.axes[-1].transData.transform(text.xy), boxes[name]
        middle = (own.x0 + own.width / 2, own.y0 + own.height / 2)
        way = [place for place in np.linspace(point, middle, 100) if not own.contains(*place)]
        for other, each in boxes.items():
            if other != name:
                assert not [place for place in way if each.contains(*place)], f"{name} through {other}"


def test_names_are_the_plans_and_the_rest_is_said_once(tuned: list[PickRow], draw: Draw) -> None:
    figure = draw(tuned, PLANS)
    assert set(names(figure)) == {
        "3:0.2,7:0.2", "3:0.2,7:0.3", "3:0.2,7:0.8", "3:0.4,5:0.3", "3:0.4,5:0.3,7:0.2", "all tokens",
    }  # fmt: skip
    assert figure.axes[0].get_title(loc="left") == "segmenter_ti 192x256 pause"
    assert names(figure)["3:0.2,7:0.2"].get_weight() == "bold"


def test_axes_end_around_the_points_when_all_lie_within_a_frame(tuned: list[PickRow], draw: Draw) -> None:
    left, right = draw(tuned, PLANS).axes[-1].get_xlim()
    assert 9 < left < 11.8
    assert 28.0 < right < 31


def test_axes_begin_at_nothing_when_the_fastest_is_many_times_faster(compensated: list[PickRow], draw: Draw) -> None:
    assert draw(compensated, SIZES).axes[-1].get_xlim()[0] == 0


def test_tail_of_a_row_left_early_does_not_widen_the_axes(tuned: list[PickRow], draw: Draw) -> None:
    left_early = row(vit("5:0.4"), 14.0, 400.0, 0.545, 0.533, skipped="cannot be the best any more")
    assert draw([*tuned, left_early], [*PLANS, vit("5:0.4")]).axes[-1].get_xlim()[1] < 31


def late_words(figure: Any) -> dict[str, Any]:
    return {each.get_text(): each for axes in figure.axes for each in axes.texts if "late" in each.get_text()}


def test_frames_late_stand_above_the_axes_and_the_legend_below(compensated: list[PickRow], draw: Draw) -> None:
    """33.3 ms a frame: the axes end behind 1 of them."""
    figure = draw(compensated, SIZES, fps=30.0)
    words, renderer = late_words(figure), figure.canvas.get_renderer()
    assert set(words) == {"1 frame late", "2 frames late"}
    top = figure.axes[0].get_window_extent().y1
    assert min(each.get_window_extent(renderer).y0 for each in words.values()) > top
    (legend,) = figure.legends
    assert legend.get_window_extent(renderer).y1 < figure.axes[-1].get_window_extent().y0
    assert all(axes.get_legend() is None for axes in figure.axes)


def test_axis_is_broken_to_one_scale_when_miou_without_delay_lies_apart(tuned: list[PickRow], draw: Draw) -> None:
    """A gap of 0.009 between two clouds of 0.002."""
    upper, lower = draw(tuned, PLANS).axes
    assert lower.get_ylim()[1] < 0.5489 < 0.5511 < upper.get_ylim()[1]
    assert lower.get_ylim()[0] < 0.5375 < 0.5396 < lower.get_ylim()[1] < upper.get_ylim()[0] < 0.5489
    per_miou = [axes.get_window_extent().height / np.diff(axes.get_ylim()).item() for axes in (upper, lower)]
    assert per_miou[0] == pytest.approx(per_miou[1], rel=0.02)


def test_axis_is_whole_when_both_miou_overlap(compensated: list[PickRow], draw: Draw) -> None:
    assert len(draw(compensated, SIZES).axes) == 1


@pytest.mark.parametrize("fps", [5.0, 30.0, 240.0])
def test_single_row_is_drawn_with_its_name(fps: float, draw: Draw) -> None:
    figure = draw([row(vit(None), 20.0, 20.0, 0.5, 0.5)], PLANS, fps)
    assert set(names(figure)) == {"segmenter_ti 192x256"}


def test_front_joins_its_points_in_the_panel_of_miou_without_delay(tuned: list[PickRow], draw: Draw) -> None:
    figure = draw(tuned, PLANS, front=[PLANS[4].name, PLANS[1].name, PLANS[2].name])
    (line,) = [each for each in figure.axes[0].get_lines() if each.get_label() == "Pareto front without delay"]
    assert list(line.get_xdata()) == [11.8, 13.4, 15.7]


def labelled(rows: Sequence[PickRow], knobs: Sequence[Configuration]) -> tuple[str, list[str]]:
    from edgeseg.runtime.plot_labels import short_names

    by_name: Mapping[str, Configuration] = {each.name: each for each in knobs}
    common, labels = short_names(rows, by_name)
    return common, [labels[each.name] for each in rows]


@pytest.mark.parametrize(
    ("knobs", "common", "expected"),
    [
        ([vit("3:0.4"), vit(None)], "segmenter_ti 192x256 pause", ["3:0.4", "all tokens"]),
        ([vit("3:0.4"), vit("3:0.4", precision="int8")], "segmenter_ti 192x256 pause 3:0.4", ["fp32", "int8"]),
        ([vit(None), vit(None, size_hw=(144, 192))], "segmenter_ti", ["192x256", "144x192"]),
        ([vit("3:0.4"), Configuration("segmenter_ti", (192, 256), method="prune", plan=TokenPlan.parse("3:0.4"))],
         "segmenter_ti 192x256 3:0.4", ["pause", "prune"]),
        ([convolutional(264, 1), convolutional(264, 4), convolutional(540, 1)], "swiftnet_r18 w0.25",
         ["264x352", "264x352 s4", "540x720"]),
        ([Configuration("swiftnet_r18", (64, 96)), Configuration("swiftnet_r18", (64, 96), rho=0.5, cwm_form="split")],
         "swiftnet_r18 64x96", ["dense", "rho0.5-split"]),
        ([vit("3:0.4")], "", ["segmenter_ti 192x256 pause 3:0.4"]),
    ],
)  # fmt: skip
def test_short_names_are_the_knobs_that_differ(knobs: list[Configuration], common: str, expected: list[str]) -> None:
    rows = [row(each, 10.0 + place, 12.0, 0.5, 0.4) for place, each in enumerate(knobs)]
    assert labelled(rows, knobs) == (common, expected)


def test_short_names_say_how_labels_are_moved_where_there_are_several_ways() -> None:
    both, one = vit(None), vit("3:0.4")
    rows = [row(both, 9.0, 9.0, 0.5, 0.4)]
    rows += [row(both, 9.0, 9.0, 0.5, 0.4, f"late-warp+extrapolate_dis-ultrafast_d{divisor}") for divisor in (1, 2)]
    rows += [row(one, 9.0, 9.0, 0.5, 0.4, "late-warp+extrapolate_dis-ultrafast_d2")]
    assert labelled(rows, [both, one])[1] == ["all tokens", "all tokens, d1", "all tokens, d2", "3:0.4"]
