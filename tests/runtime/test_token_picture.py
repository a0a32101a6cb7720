from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.runtime.token_picture import STOP_COLOURS, TO_THE_END, TokenStages, TokenStop, save_token_picture
from support.pictures import FRAME_RGB

pytest.importorskip("matplotlib", reason="pictures need matplotlib")
CLASSES = ClassSet(("road", "car", "sky"), ((200, 0, 0), (0, 200, 0), (0, 0, 200)))


@pytest.fixture
def stages() -> TokenStages:
    """4 x 5 patches: the upper row stops after layer 2, the lower one after layer 4, two rows run to layer 6."""
    rows = np.arange(4)[:, None].repeat(5, axis=1)
    first, second = rows > 0, (rows > 0) & (rows < 3)
    doubt = np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5)
    labels = np.minimum(rows, 2).astype(np.uint8)
    stops = (
        TokenStop(2, np.ones((4, 5), bool), first, doubt, labels),
        TokenStop(4, first, second, np.where(first, doubt, np.nan).astype(np.float32), labels),
    )
    return TokenStages("vit_64x80_pause", np.full_like(FRAME_RGB, 128), stops, labels, CLASSES, 6, "entropy (nats)")


def of_colour(picture_rgb: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Pixels of the colour laid half over the grey frame."""
    laid = np.array([(128 + value) // 2 for value in colour])
    return int((np.abs(picture_rgb.astype(int) - laid).max(axis=2) <= 2).sum())


def drawn(stages: TokenStages, path: Path) -> np.ndarray:
    save_token_picture(stages, path)
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture[..., ::-1]


def test_counts_and_places_are_those_of_the_stops(stages: TokenStages) -> None:
    assert stages.counts == {2: 15, 4: 10}
    np.testing.assert_array_equal(stages.stopped_at[:, 0], [0, -1, -1, 1])


def test_tokens_have_the_colour_of_the_stage_where_they_stopped(stages: TokenStages, tmp_path: Path) -> None:
    """Green is the upper row in three panels, pink the lower row in two, red two rows in the last one."""
    picture = drawn(stages, tmp_path / "t.png")
    green, pink, red = (of_colour(picture, colour) for colour in (STOP_COLOURS[0], STOP_COLOURS[1], TO_THE_END))
    assert green / pink == pytest.approx(3 / 2, rel=0.05)
    assert green / red == pytest.approx(3 / 2, rel=0.05)


def test_picture_is_wider_by_a_panel_per_stage(stages: TokenStages, tmp_path: Path) -> None:
    two = drawn(stages, tmp_path / "two.png")
    one = drawn(replace(stages, stops=stages.stops[:1]), tmp_path / "one.png")
    assert two.shape[0] == one.shape[0]
    assert two.shape[1] - one.shape[1] == pytest.approx(3.32 * 130, abs=2)


def test_vector_picture_names_counts_classes_and_layers(stages: TokenStages, tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        save_token_picture(stages, tmp_path / "t.svg")
    text = (tmp_path / "t.svg").read_text(encoding="utf-8")
    for words in ("vit_64x80_pause", "after layer 2: 5 stop, 15 go on", "after layer 4: 5 stop, 10 go on",
                  "the end: 10 ran through all 6 layers", "entropy (nats) of the 15 tokens", "road", "car", "sky",
                  "tokens 20 -&gt; 15 -&gt; 10"):  # fmt: skip
        assert words in text, words


def test_picture_of_a_wrong_ending_is_refused_and_not_written(stages: TokenStages, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a plot is written as \.png"):
        save_token_picture(stages, tmp_path / "t.bmp")
    assert list(tmp_path.iterdir()) == []


def test_stages_without_a_stop_are_refused(stages: TokenStages) -> None:
    with pytest.raises(InputError, match="no token stops anywhere"):
        replace(stages, stops=())
