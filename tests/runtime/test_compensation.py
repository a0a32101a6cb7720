"""Labels moved by known motions land where they should; what cannot be moved is left alone, with the reason counted."""

import math
import threading

import cv2
import numpy as np
import pytest

from edgeseg.config import MODES, Compensation
from edgeseg.errors import InputError
from edgeseg.runtime import optical_flow
from edgeseg.runtime.compensation import Compensator
from edgeseg.runtime.motion_memory import FRAMES_HELD
from edgeseg.runtime.optical_flow import (
    FRAME_PIXELS_MAX,
    consistent,
    flow_size_hw,
    grey,
    grid_xy,
    sample,
    sample_along,
    scaled,
)

HEIGHT, WIDTH = 192, 256
CPU_FLOWS = ("dis-ultrafast", "dis-fast", "dis-medium", "farneback", "lucas-kanade")
PERIOD_S = 1 / 15
INNER = (slice(32, -32), slice(40, -40))
"""Pixels that stay in the picture in all motions used here."""


def texture(seed=0, size=(HEIGHT, WIDTH)):
    """A grey picture with detail at several scales, float32 of `size`, larger than 40 levels in contrast."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.uniform(-1, 1, (size[0] // cell, size[1] // cell)).astype(np.float32), size[::-1])
        for cell in (6, 12, 24)
    ]
    picture = cv2.resize(sum(layers), size[::-1])
    return np.clip(128 + 60 * picture, 0, 255)


def moved_by(image, matrix, *, nearest=False):
    """`image` whose content goes from x to `matrix` x, a 2 x 3 array in pixels."""
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return cv2.warpAffine(image, np.float32(matrix), image.shape[1::-1], flags=how, borderMode=cv2.BORDER_REFLECT)


def rgb(picture):
    return np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def shift(x, y=0.0):
    return [[1, 0, x], [0, 1, y]]


def turn_and_zoom(degrees, factor):
    return cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), degrees, factor)


def blobs(size=(HEIGHT, WIDTH)):
    """Labels with regions some 20 pixels wide: 0 to 3."""
    rng = np.random.default_rng(7)
    coarse = cv2.resize(rng.uniform(0, 4, (size[0] // 20, size[1] // 20)).astype(np.float32), size[::-1])
    return np.clip(coarse, 0, 3).astype(np.uint8)


def run(compensator, frames, labels, source, time_s, times=None):
    for index, frame in enumerate(frames):
        compensator.add_frame(index, frame, PERIOD_S * index if times is None else times[index])
    compensator.add_labels(labels, source)
    return compensator.labels_at(time_s)


def agreement(labels, expected):
    return float((labels[INNER] == expected[INNER]).mean())


@pytest.fixture
def sliding():
    """Four frames of a picture that goes 4 pixels to the right and 2 down per period."""
    return [rgb(moved_by(texture(), shift(4 * step, 2 * step))) for step in range(4)]


@pytest.mark.parametrize("flow", CPU_FLOWS)
@pytest.mark.parametrize(
    ("mode", "source", "periods"),
    [
        ("late-warp", 0, 3),
        ("late-warp+extrapolate", 0, 4),
        ("late-warp+extrapolate", 1, 4.5),
        ("late-warp+extrapolate", 3, 5),
        ("extrapolate", 2, 4),
        ("extrapolate", 2, 2.5),
    ],
)
def test_labels_move_as_far_as_the_picture_when_it_slides(sliding, flow, mode, source, periods):
    labels = moved_by(blobs(), shift(4 * source, 2 * source), nearest=True)
    moved = run(Compensator(Compensation(mode, flow)), sliding, labels, source, PERIOD_S * periods)
    steps = periods - source
    assert moved.fallback is None
    assert agreement(moved.labels, moved_by(labels, shift(4 * steps, 2 * steps), nearest=True)) > 0.93
    assert moved.moved_px == pytest.approx(steps * math.hypot(4, 2), rel=0.1)


@pytest.mark.parametrize("flow", ["dis-ultrafast", "lucas-kanade"])
@pytest.mark.parametrize(("degrees", "factor"), [(2.0, 1.0), (-2.0, 1.0), (0.0, 1.03), (0.0, 0.97), (1.0, 1.02)])
def test_labels_turn_and_grow_with_the_picture(flow, degrees, factor):
    frames = [rgb(moved_by(texture(), turn_and_zoom(degrees * step, factor**step))) for step in range(4)]
    moved = run(Compensator(Compensation("late-warp", flow)), frames, blobs(), 0, 3 * PERIOD_S)
    assert agreement(moved.labels, moved_by(blobs(), turn_and_zoom(3 * degrees, factor**3), nearest=True)) > 0.93
    assert agreement(moved.labels, blobs()) < 0.9


@pytest.mark.parametrize("flow", CPU_FLOWS[:1] + CPU_FLOWS[-1:])
def test_labels_follow_a_fast_pan(flow):
    """A twelfth of the picture's width per frame."""
    wide = texture(size=(HEIGHT, 2 * WIDTH))
    frames = [rgb(wide[:, 84 - 21 * step :][:, :WIDTH]) for step in range(4)]
    moved = run(Compensator(Compensation(flow=flow, divisor=1)), frames, blobs(), 2, 4 * PERIOD_S)
    expected = moved_by(blobs(), shift(42), nearest=True)
    assert (moved.labels == expected)[24:-24, 90:-40].mean() > 0.9


def test_lost_points_take_the_way_of_their_neighbours():
    ways = np.zeros((3, 4, 2), np.float32)
    ways[:, :2] = 3, 1
    ways[1, 0] = 99, 99
    known = np.ones((3, 4), np.uint8)
    known[1, 0] = 0
    filled = optical_flow._filled(ways, known)
    assert filled[1, 0].tolist() == pytest.approx([3, 1])
    assert (filled[known > 0] == ways[known > 0]).all()


def test_motions_are_composed_along_the_way_when_the_picture_turns_far():
    """Eight turns of 4 degrees: ways added at one place, and not one after the other, end many pixels beside."""
    size = min(HEIGHT, WIDTH)
    frames = [rgb(moved_by(texture(), turn_and_zoom(4 * step, 1.0))) for step in range(9)]
    moved = run(Compensator(Compensation("late-warp", "dis-fast", 1)), frames, blobs(), 0, 8 * PERIOD_S)
    expected = moved_by(blobs(), turn_and_zoom(32, 1.0), nearest=True)
    y, x = np.indices((HEIGHT, WIDTH))
    disc = np.hypot(y - HEIGHT / 2, x - WIDTH / 2) < 0.45 * size
    assert (moved.labels == expected)[disc].mean() > 0.95


@pytest.mark.parametrize("size", [(96, 128), (48, 64), (384, 512), (144, 256)])
def test_motion_is_scaled_when_labels_have_another_size(sliding, size):
    labels = blobs(size)
    moved = run(Compensator(Compensation("late-warp")), sliding, labels, 0, 0.2)
    way = shift(12 * size[1] / WIDTH, 6 * size[0] / HEIGHT)
    expected = cv2.warpAffine(labels, np.float32(way), size[::-1], flags=cv2.INTER_NEAREST)
    inner = tuple(slice(length // 4, -length // 4) for length in size)
    assert moved.labels.shape == size
    assert (moved.labels[inner] == expected[inner]).mean() > 0.95


def test_times_count_and_not_indices_when_a_frame_was_dropped(sliding):
    compensator = Compensator(Compensation("late-warp+extrapolate"))
    for index in (0, 1, 3):
        compensator.add_frame(index, sliding[index], PERIOD_S * index)
    compensator.add_labels(blobs(), 1)
    moved = compensator.labels_at(4 * PERIOD_S)
    assert agreement(moved.labels, moved_by(blobs(), shift(12, 6), nearest=True)) > 0.97


def test_sampling_is_nearest_and_repeats_the_border():
    labels = np.uint8([[1, 2, 3], [4, 5, 6]])
    right = grid_xy((2, 3)) + np.float32([1, 0])
    almost_half = grid_xy((2, 3)) + np.float32([-0.4, 0.4])
    up_two = grid_xy((2, 3)) + np.float32([0, -2])
    assert sample(labels, right, nearest=True).tolist() == [[2, 3, 3], [5, 6, 6]]
    assert sample(labels, almost_half, nearest=True).tolist() == labels.tolist()
    assert sample(labels, up_two, nearest=True).tolist() == [[1, 2, 3], [1, 2, 3]]


def test_ways_of_a_field_are_as_long_in_a_larger_map_as_the_map_is_larger():
    field = np.full((2, 4, 2), [2.0, 0.5], np.float32)
    assert scaled(field, (2, 4), 0.5).tolist() == [[[1.0, 0.25]] * 4] * 2
    assert scaled(field, (8, 8)).shape == (8, 8, 2)
    assert scaled(field, (8, 8))[3, 3].tolist() == [4.0, 2.0]


@pytest.mark.parametrize("relative_map", [True, False])
def test_sampling_along_ways_starts_at_each_pixel(monkeypatch, relative_map):
    if not relative_map:
        monkeypatch.setattr(optical_flow, "_RELATIVE_MAP", None)
    labels = np.uint8([[1, 2, 3], [4, 5, 6]])
    ways = np.zeros((2, 3, 2), np.float32)
    ways[0, 0] = 2, 1
    ways[1, 1] = -5, -0.4
    assert sample_along(labels, ways, nearest=True).tolist() == [[6, 2, 3], [4, 4, 6]]


def test_forward_and_backward_disagree_where_a_way_does_not_lead_back():
    forward = np.zeros((1, 4, 2), np.float32)
    backward = np.zeros((1, 4, 2), np.float32)
    forward[0, 0, 0] = 2.0
    assert consistent(forward, backward).tolist() == [[0, 1, 1, 1]]
    backward[0, 2, 0] = -2.0
    assert consistent(forward, backward).tolist() == [[1, 1, 0, 1]]


@pytest.mark.parametrize(
    ("frame_hw", "divisor", "expected"),
    [
        ((360, 480), 2, (180, 240)),
        ((360, 480), 1, (360, 480)),
        ((1080, 1920), 2, (270, 480)),
        ((64, 96), 4, (32, 48)),
        ((40, 60), 4, (40, 60)),
        ((31, 400), 1, None),
        ((12, 64), 2, None),
        ((33, 10_000), 1, (33, 10_000)),
        ((40, 60_000), 1, None),
        ((1080, 1920), 1, (540, 960)),
        ((2160, 3840), 2, (360, 640)),
    ],
)
def test_flow_size_is_bounded(frame_hw, divisor, expected):
    size = flow_size_hw(frame_hw, divisor)
    assert size == expected
    assert size is None or size[0] * size[1] <= FRAME_PIXELS_MAX


def test_grey_owns_its_pixels():
    frame = np.full((32, 32, 3), 7, np.uint8)
    image = grey(frame, (32, 32))
    frame[:] = 200
    assert image.max() == 7


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sigma", [0, 3, 5])
def test_static_scene_is_left_unchanged_when_the_camera_is_noisy(mode, sigma):
    rng = np.random.default_rng(3)
    still = texture()[..., None] + np.zeros(3)
    frames = [np.clip(still + sigma * rng.normal(size=still.shape), 0, 255).astype(np.uint8) for _ in range(6)]
    moved = run(Compensator(Compensation(mode)), frames, blobs(), 2, 6 * PERIOD_S)
    assert moved.fallback is None
    assert (moved.labels == blobs()).mean() >= 0.999


def test_labels_stay_when_the_mode_is_none(sliding):
    compensator = Compensator(Compensation("none"))
    moved = run(compensator, sliding, blobs(), 0, 1.0)
    assert (moved.labels == blobs()).all()
    assert (moved.fallback, moved.moved_px, moved.source_at_s, compensator.fallbacks) == (None, 0.0, 0.0, {})


def test_late_warp_keeps_labels_of_the_newest_frame_as_they_are(sliding):
    moved = run(Compensator(Compensation("late-warp")), sliding, blobs(), 3, 1.0)
    assert (moved.labels == blobs()).all()
    assert moved.fallback is None


def with_frame(frames, position, frame):
    return [*frames[:position], frame, *frames[position + 1 :]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda frames: with_frame(frames, 2, np.zeros_like(frames[0])), "scene cut"),
        (lambda frames: with_frame(frames, 3, np.full_like(frames[0], 255)), "scene cut"),
        (lambda frames: [*frames[:2], rgb(texture(50)), rgb(texture(50))], "scene cut"),
        (
            lambda frames: with_frame(frames, 2, np.random.default_rng(0).integers(0, 255, frames[0].shape, np.uint8)),
            "scene cut",
        ),
        (lambda frames: with_frame(frames, 3, frames[3][:100]), "frame size"),
        (lambda frames: [frame[:20] for frame in frames], "frame too small"),
    ],
)
def test_labels_stay_and_the_reason_is_counted_when_frames_do_not_match(sliding, change, reason):
    compensator = Compensator(Compensation())
    moved = run(compensator, change(sliding), blobs(), 1, 4 * PERIOD_S)
    assert (moved.labels == blobs()).all()
    assert moved.fallback == reason
    assert compensator.fallbacks == {reason: 1}


@pytest.mark.parametrize(
    ("times", "time_s"),
    [
        ([0.0, 0.0, 0.0, 0.0], 0.0),
        ([1.0, 1.1, 0.2, 0.3], 0.4),
        ([0.0, 0.1, math.nan, 0.3], 0.4),
        ([0.0, 0.1, math.inf, 0.3], 0.4),
        ([0.0, -math.inf, 0.2, 0.3], 0.4),
        ([0.0, 0.1, 0.2, 0.3], 100.0),
        ([0.0, 0.1, 0.2, 0.3], 2.3),
        ([0.0, 0.1, 0.2, 0.3], 0.05),
        ([0.0, 0.1, 0.2, 0.3], math.nan),
        ([0.0, 0.1, 0.2, 0.3], math.inf),
    ],
)
def test_labels_stay_when_the_clock_stands_or_jumps(sliding, times, time_s):
    compensator = Compensator(Compensation())
    moved = run(compensator, sliding, blobs(), 1, time_s, times)
    assert (moved.labels == blobs()).all()
    assert (moved.fallback, compensator.fallbacks) == ("clock", {"clock": 1})


def test_labels_move_again_after_a_cut(sliding):
    compensator = Compensator(Compensation())
    run(compensator, [np.zeros_like(sliding[0]), *sliding], blobs(), 0, 5 * PERIOD_S)
    compensator.add_labels(blobs(), 1)
    moved = compensator.labels_at(5 * PERIOD_S)
    assert moved.fallback is None
    assert agreement(moved.labels, moved_by(blobs(), shift(16, 8), nearest=True)) > 0.97


def test_labels_stay_when_there_is_one_frame_only(sliding):
    moved = run(Compensator(Compensation()), sliding[:1], blobs(), 0, PERIOD_S)
    assert moved.fallback == "no motion known"


def test_labels_stay_when_their_frame_is_unknown_or_forgotten():
    frame = rgb(texture(size=(48, 64)))
    compensator = Compensator(Compensation())
    moved = run(compensator, [frame] * (FRAMES_HELD + 1), blobs((48, 64)), 0, 5.0)
    assert moved.fallback == "source frame not held"
    assert math.isnan(moved.source_at_s)
    compensator.add_labels(blobs((48, 64)), 1000)
    assert compensator.labels_at(5.0).source_index == 1000
    assert compensator.fallbacks == {"source frame not held": 2}


def test_there_is_nothing_before_the_first_labels_and_after_a_reset(sliding):
    compensator = Compensator(Compensation())
    assert compensator.labels_at(0.0) is None
    run(compensator, sliding, blobs(), 0, 1.0)
    compensator.reset()
    assert compensator.labels_at(1.0) is None
    compensator.add_frame(0, sliding[0], 0.0)


def test_path_composed_step_by_step_equals_the_path_composed_at_once(sliding):
    at_once = run(Compensator(Compensation()), sliding, blobs(), 0, 4 * PERIOD_S)
    compensator = Compensator(Compensation())
    compensator.add_labels(blobs(), 0)
    for index, frame in enumerate(sliding):
        compensator.add_frame(index, frame, PERIOD_S * index)
        last = compensator.labels_at(PERIOD_S * (index + 1))
    assert (last.labels == at_once.labels).all()


@pytest.mark.parametrize("mark", [False, True])
def test_pixels_that_were_hidden_keep_their_label_or_are_marked(mark):
    """A square goes 12 pixels to the right over a standing background; what it uncovers was hidden."""
    frames, square = [], texture(5)[:64, :64]
    for left in (80, 92):
        picture = texture()
        picture[64:128, left : left + 64] = square
        frames.append(rgb(picture))
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[64:128, 80:144] = 1
    compensation = Compensation("late-warp", "dis-medium", 1, mark_invalid=mark)
    moved = run(Compensator(compensation, ignore_value=99, check_consistency=True), frames, labels, 0, 1.0)
    uncovered = moved.labels[68:124, 81:91]
    assert 0.001 < moved.invalid_share < 0.2
    assert (uncovered == 99).mean() > 0.5 if mark else (moved.labels != 99).all()
    assert (moved.labels[68:124, 100:136] == 1).mean() > 0.95


def test_what_was_hidden_two_frames_back_stays_invalid_when_nothing_hides_since():
    """A square goes to the right over a standing background, then stands: the last step alone hides nothing."""
    frames, square = [], texture(5)[:64, :64]
    for left in (80, 92, 92):
        picture = texture()
        picture[64:128, left : left + 64] = square
        frames.append(rgb(picture))
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    compensator = Compensator(Compensation("late-warp", "dis-medium", 1, mark_invalid=True), ignore_value=99)
    moved = run(compensator, frames, labels, 0, 1.0)
    last_step_alone = compensator.move(labels, 1, 2, 1.0)
    assert (moved.labels[68:124, 81:91] == 99).mean() > 0.5
    assert not (last_step_alone.labels == 99).any()


def test_the_mode_of_a_move_may_be_another_one(sliding):
    compensator = Compensator(Compensation("late-warp"))
    run(compensator, sliding, blobs(), 0, 0.0)
    for mode in MODES:
        own = run(Compensator(Compensation(mode)), sliding, blobs(), 0, 4 * PERIOD_S)
        moved = compensator.move(blobs(), 0, 3, 4 * PERIOD_S, mode=mode)
        assert (moved.labels == own.labels).all()
        assert moved.moved_px == own.moved_px
    with pytest.raises(InputError, match="unknown compensation mode 'sideways'"):
        compensator.move(blobs(), 0, 3, 4 * PERIOD_S, mode="sideways")


def test_invalid_share_is_unknown_when_consistency_is_not_checked(sliding):
    assert math.isnan(run(Compensator(Compensation()), sliding, blobs(), 0, 0.3).invalid_share)


def test_labels_given_are_never_changed_or_handed_out(sliding):
    labels = blobs()
    compensator = Compensator(Compensation())
    for time_s in (0.3, 1000.0):
        moved = run(compensator, sliding, labels, 1, time_s)
        moved.labels[:] = 77
        compensator.reset()
    assert (labels == blobs()).all()


def test_labels_may_come_from_another_thread(sliding):
    compensator = Compensator(Compensation())
    stop = threading.Event()

    def network():
        source = 0
        while not stop.is_set():
            compensator.add_labels(np.full((24, 32), source % 200, np.uint8), source)
            source += 1

    thread = threading.Thread(target=network)
    thread.start()
    try:
        for index in range(60):
            compensator.add_frame(index, sliding[index % 4], PERIOD_S * index)
            moved = compensator.labels_at(PERIOD_S * (index + 1))
            assert moved is None or (moved.labels == moved.source_index % 200).all()
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "warp"},
        {"flow": "raft"},
        {"divisor": 0},
        {"divisor": 17},
        {"divisor": True},
        {"divisor": 2.0},
        {"mark_invalid": 1},
        {"preset": "fast"},
    ],
)
def test_knob_refuses_what_it_does_not_know(wrong):
    with pytest.raises(InputError):
        Compensation.from_dict(wrong)


def test_knob_comes_back_from_its_dictionary_and_has_a_name():
    knob = Compensation("extrapolate", "farneback", 3, mark_invalid=True)
    assert Compensation.from_dict(knob.as_dict()) == knob
    assert knob.name == "extrapolate_farneback_d3_marked"
    assert Compensation().name == "late-warp+extrapolate_dis-ultrafast_d2"
    assert Compensation("none").name == "none"


@pytest.mark.parametrize(
    "give",
    [
        lambda compensator: compensator.add_frame(1, np.zeros((64, 64), np.uint8), 0.0),
        lambda compensator: compensator.add_frame(1, np.zeros((64, 64, 3), np.float32), 0.0),
        lambda compensator: compensator.add_frame(0, np.zeros((64, 64, 3), np.uint8), 0.0),
        lambda compensator: compensator.add_labels(np.zeros((4, 4), np.int64), 0),
        lambda compensator: compensator.add_labels(np.zeros((4, 4, 1), np.uint8), 0),
        lambda compensator: Compensator(Compensation(), ignore_value=256),
    ],
)
def test_what_is_no_frame_or_no_label_map_is_refused(give):
    compensator = Compensator(Compensation())
    compensator.add_frame(0, np.zeros((64, 64, 3), np.uint8), 0.0)
    with pytest.raises(InputError):
        give(compensator)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "none"])
def test_moved_labels_hold_no_value_that_the_labels_did_not_have(sliding, mode):
    labels = np.where(blobs() % 2 == 0, 3, 9).astype(np.uint8)
    moved = run(Compensator(Compensation(mode)), sliding, labels, 1, PERIOD_S * (len(sliding) + 0.3))
    assert moved.fallback is None
    assert set(np.unique(moved.labels)) == {3, 9}


def noisy(still, sigma, seed):
    """RGB frame of a grey picture, with noise of its own in each channel."""
    noise = sigma * np.random.default_rng(seed).normal(size=(*still.shape, 3))
    return np.clip(still[..., None] + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("flow", ["dis-ultrafast", "lucas-kanade"])
@pytest.mark.parametrize("divisor", [1, 2])
@pytest.mark.parametrize("sigma", [1, 3, 5, 8])
@pytest.mark.parametrize("grey_levels", [8, 20, 60])
def test_static_scene_of_little_contrast_is_left_unchanged_when_the_flow_follows_noise(
    flow, divisor, sigma, grey_levels
):
    still = 128 + grey_levels / 256 * (texture() - 128)
    frames = [noisy(still, sigma, seed) for seed in range(5)]
    moved = run(Compensator(Compensation(flow=flow, divisor=divisor)), frames, blobs(), 1, 6 * PERIOD_S)
    assert moved.fallback is None
    assert (moved.labels == blobs()).mean() >= 0.999


def test_static_scene_is_left_unchanged_when_a_part_without_noise_is_saturated():
    still = 128 + 0.1 * (texture() - 128)
    still[: HEIGHT // 8] = 300
    frames = [noisy(still, 6, seed) for seed in range(5)]
    moved = run(Compensator(Compensation(divisor=1)), frames, blobs(), 1, 6 * PERIOD_S)
    assert (moved.labels == blobs()).mean() >= 0.999


def test_small_changes_are_motion_when_warping_fails_in_most_of_the_picture():
    """Six tenths are not found again, a tenth stands still, and the rest changes a little, which warping explains."""
    change, left = np.full((50, 60), 60, np.float32), np.full((50, 60), 30, np.uint8)
    change[30:], left[30:] = 4, 1
    change[45:], left[45:] = 0.5, 0
    moves = optical_flow._moving(change, left)
    assert (moves[30:45] == 255).all()
    assert (moves[45:] == 0).all()


@pytest.mark.parametrize("flow", ["dis-ultrafast", "lucas-kanade"])
@pytest.mark.parametrize("sigma", [0, 3, 5])
def test_object_moves_and_its_surroundings_stay_when_the_camera_is_noisy(flow, sigma):
    """A square goes 6 pixels to the right per frame over a standing background of little contrast."""
    frames, square = [], texture(5)[:64, :64]
    for step in range(4):
        picture = 128 + 0.1 * (texture() - 128)
        picture[64:128, 60 + 6 * step : 124 + 6 * step] = square
        frames.append(noisy(picture, sigma, step))
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[64:128, 66:130] = 1
    moved = run(Compensator(Compensation(flow=flow)), frames, labels, 1, 4 * PERIOD_S)
    assert (moved.labels[72:120, 88:144] == 1).mean() > 0.95
    assert (moved.labels[72:120, 60:74] == 0).mean() > 0.9
    elsewhere = blobs()
    away = run(Compensator(Compensation(flow=flow)), frames, elsewhere, 1, 4 * PERIOD_S).labels
    assert (away[:32] == elsewhere[:32]).all()
    assert (away[160:] == elsewhere[160:]).all()
