import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.session_loading import load


def test_colours_are_swapped_when_the_frame_is_bgr(bundle):
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[..., 0] = 200
    with load(bundle, configuration="plain_32x48", colour_order="BGR") as session:
        assert np.unique(session.step(frame)).tolist() == [2]
        assert frame[0, 0].tolist() == [200, 0, 0]


def test_colours_are_swapped_when_the_graphs_take_bgr_and_the_frame_is_resized(tmp_path, graphs):
    made = graphs.write_bundle(tmp_path / "bgr.edgeseg", [graphs.stateless()], colour_order="BGR")
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[..., 0] = 200
    with load(made, configuration="plain_32x48", frame_size_hw=(64, 96)) as session:
        assert np.unique(session.step(frame)).tolist() == [2]


def test_step_writes_into_out_when_given(bundle, frame):
    out = np.zeros((32, 48), np.uint8)
    with load(bundle, configuration="frames_32x48") as session:
        assert session.step(frame(1), out=out) is out
    assert out[0, -1] == 255


def test_step_resizes_when_the_frame_size_was_given(bundle):
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:, :48, 0] = frame[:, 48:, 1] = 200
    with load(bundle, configuration="plain_32x48", frame_size_hw=(64, 96)) as session:
        assert session.step(frame)[5].tolist() == [0] * 24 + [1] * 24


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((32, 47, 3), np.uint8), r"uint8 \(32, 47, 3\) \| expected uint8 \(32, 48, 3\)"),
        (np.zeros((64, 96, 3), np.uint8), r"load the session with frame_size_hw=\(64, 96\)"),
        (np.zeros((32, 48, 4), np.uint8), r"uint8 \(32, 48, 4\)"),
        (np.zeros((32, 48), np.uint8), r"uint8 \(32, 48\)"),
        (np.zeros((32, 48, 3), np.float32), "float32 .* 0 to 255"),
        (None, "NoneType"),
    ],
)
def test_step_refuses_a_frame_of_another_shape_or_dtype(bundle, wrong, words):
    with load(bundle, configuration="plain_32x48") as session, pytest.raises(InputError, match=words):
        session.step(wrong)


def test_step_takes_a_frame_that_is_not_contiguous(bundle):
    frame = np.zeros((32, 96, 3), np.uint8)
    frame[:, ::2, 1] = 200
    with load(bundle, configuration="plain_32x48") as session:
        assert np.unique(session.step(frame[:, ::2])).tolist() == [1]
