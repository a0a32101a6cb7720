from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.runtime.token_picture import (
    OPACITY,
    TO_THE_END,
    TokenStages,
    TokenStop,
    save_token_picture,
    stop_colours,
)
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
        TokenStop(4, first, second, np.where(first, doubt[::-1], np.nan).astype(np.float32), labels),
    )
    return TokenStages("vit_64x80_pause", np.full_like(FRAME_RGB, 128), stops, labels, CLASSES, 6, "entropy (nats)")


@pytest.fixture(scope="module")
def seven_stops(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Picture of 8 x 5 patches of a frame of 64 x 80: row r stops after layer r + 1, the last row runs to layer 8."""
    rows = np.arange(8)[:, None].repeat(5, axis=1)
    doubt, labels = rows.astype(np.float32) + 1, np.zeros((8, 5), np.uint8)
    stops = tuple(
        TokenStop(layer, rows >= layer - 1, rows >= layer, np.where(rows >= layer - 1, doubt, np.nan), labels)
        for layer in range(1, 8)
    )
    grey = np.full_like(FRAME_RGB, 128)
    stages = TokenStages("vit_seven", grey, stops, labels, CLASSES, 8, "entropy (nats)")
    return drawn(stages, tmp_path_factory.mktemp("seven") / "t.png")


def of_colour(picture_rgb: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Pixels of the colour laid over the grey frame."""
    laid = OPACITY * np.array(colour) + (1 - OPACITY) * 128
    return int((np.abs(picture_rgb.astype(int) - laid).max(axis=2) <= 2).sum())


def of_paint(picture_rgb: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Pixels of the colour itself."""
    return int((np.abs(picture_rgb.astype(int) - np.array(colour)).max(axis=2) <= 1).sum())


def drawn(stages: TokenStages, path: Path) -> np.ndarray:
    save_token_picture(stages, path)
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture[..., ::-1]


def test_counts_and_places_are_those_of_the_stops(stages: TokenStages) -> None:
    assert stages.counts == {2: 15, 4: 10}
    np.testing.assert_array_equal(stages.stopped_at[:, 0], [0, -1, -1, 1])


def test_tokens_have_the_colour_of_the_stage_where_they_stopped(stages: TokenStages, tmp_path: Path) -> None:
    """First is the upper row in three panels, second the lower row in two, to the end two rows in the last one; lines
    of 3 points lie around the tokens that stop in a panel."""
    picture = drawn(stages, tmp_path / "t.png")
    first, second, end = (of_colour(picture, colour) for colour in (*stop_colours(2), TO_THE_END))
    assert first / end == pytest.approx(3 / 2, rel=0.1)
    assert second / end == pytest.approx(2 / 2, rel=0.1)


def test_seventh_stop_is_not_painted_as_the_end(seven_stops: np.ndarray) -> None:
    """To the end is one row in the last panel; the seventh stop one row there and one row, outlined, in its own."""
    panel = round(3.2 * 130) * round(3.2 * 130 * 64 / 80)
    assert of_colour(seven_stops, TO_THE_END) == pytest.approx(panel / 8, rel=0.1)
    assert of_colour(seven_stops, stop_colours(7)[6]) == pytest.approx(2 * panel / 8, rel=0.15)


def test_every_stop_has_a_colour_of_its_own_in_the_key(seven_stops: np.ndarray) -> None:
    bars_and_key = [of_paint(seven_stops, colour) for colour in stop_colours(7)]
    assert len(set(stop_colours(7))) == 7
    assert min(bars_and_key) > 1000


# Of colours in linear RGB: how they look without one kind of cone (Machado, Oliveira, Fernandes 2009, severity 1).
VISION = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def seen_lab(colours_rgb: list[tuple[int, int, int]], vision: str) -> np.ndarray:
    """CIE Lab `(n, 3)` of the colours laid over a middle grey."""
    laid = (OPACITY * np.array(colours_rgb) + (1 - OPACITY) * 128) / 255
    linear = np.where(laid <= 0.04045, laid / 12.92, ((laid + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(VISION[vision]).T, 0, 1)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(encoded.astype(np.float32)[None], cv2.COLOR_RGB2LAB)[0]


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("count", [2, 6, 7, 11])
def test_colours_of_up_to_eleven_stops_are_told_apart_and_rise_in_lightness(count: int, vision: str) -> None:
    """11 is after every layer but the last of a ViT-S or -B. A difference of 2.3 in Lab is just noticeable."""
    lab = seen_lab(stop_colours(count), vision)
    apart = np.linalg.norm(lab[:, None] - lab, axis=2)[~np.eye(count, dtype=bool)]
    assert apart.min() > 5
    assert np.diff(lab[:, 0]).min() > 2.3
    assert np.linalg.norm(lab - seen_lab([TO_THE_END], vision), axis=1).min() > 15


def test_picture_is_wider_by_a_panel_per_stage(stages: TokenStages, tmp_path: Path) -> None:
    two = drawn(stages, tmp_path / "two.png")
    one = drawn(replace(stages, stops=stages.stops[:1]), tmp_path / "one.png")
    assert two.shape[0] == one.shape[0]
    assert two.shape[1] - one.shape[1] == pytest.approx(3.34 * 130, abs=2)


def test_stages_go_on_below_when_one_line_would_be_too_wide(
    stages: TokenStages, seven_stops: np.ndarray, tmp_path: Path
) -> None:
    """9 columns are 5 and 4: text stays as large as with 3 stops, at whatever width the picture is shown."""
    one_line = drawn(stages, tmp_path / "t.png")
    assert seven_stops.shape[1] - one_line.shape[1] == pytest.approx(3.34 * 130, abs=2)
    assert seven_stops.shape[0] > 1.7 * one_line.shape[0]


def test_bars_of_computed_layers_are_not_in_the_grey_of_what_is_no_longer_computed(
    stages: TokenStages, tmp_path: Path
) -> None:
    """6 layers, two of them in the colour of a stop: 20 and 20 tokens, 15 and 15, 10 and 10."""
    picture = drawn(stages, tmp_path / "t.png")
    computed, bar_of_stop = of_paint(picture, (100, 116, 139)), of_paint(picture, stop_colours(2)[0])
    assert computed / bar_of_stop == pytest.approx((20 + 15 + 10 + 10) / 20, rel=0.1)


@pytest.fixture
def pruned(stages: TokenStages) -> TokenStages:
    """The surest token of all (upper left) goes on after layer 2, and two of the lower row after layer 4."""
    first, second = stages.stops
    kept, also_kept = first.went_on.copy(), second.went_on.copy()
    kept[0, 0] = also_kept[0, 0] = also_kept[3, :2] = True
    doubt = second.doubt.copy()
    doubt[0, 0] = 0.0
    second = replace(second, ran=kept, went_on=also_kept, doubt=doubt)
    return replace(stages, stops=(replace(first, went_on=kept), second), doubt_name="1 - probability of the class")


def test_context_are_tokens_that_went_on_though_surer_than_one_that_stopped(
    stages: TokenStages, pruned: TokenStages
) -> None:
    assert [np.argwhere(stop.context).tolist() for stop in pruned.stops] == [[[0, 0]], [[0, 0], [3, 0], [3, 1]]]
    assert not any(stop.context.any() for stop in stages.stops)


def test_context_is_ringed_and_explained_only_where_there_is_some(
    stages: TokenStages, pruned: TokenStages, tmp_path: Path
) -> None:
    words = "but for the surest of each class, which go on as context (ringed)"
    assert (words in vector_text(pruned, tmp_path / "p.svg"), words in vector_text(stages, tmp_path / "s.svg")) == (
        True,
        False,
    )
    # White within a ring: in two panels 1 and 3 of them, and one in the key.
    with_rings, without = drawn(pruned, tmp_path / "p.png"), drawn(stages, tmp_path / "s.png")
    assert white_discs(with_rings) - white_discs(without) == 2 * (1 + 3) + 1


def white_discs(picture_rgb: np.ndarray) -> int:
    """White areas of the size of a ring's middle."""
    _, _, facts, _ = cv2.connectedComponentsWithStats((picture_rgb.min(axis=2) > 230).astype(np.uint8))
    width, height = facts[:, cv2.CC_STAT_WIDTH], facts[:, cv2.CC_STAT_HEIGHT]
    return int(((abs(width - 9) < 3) & (abs(height - 9) < 3) & (facts[:, cv2.CC_STAT_AREA] > 40)).sum())


def test_doubt_near_none_is_told_from_doubt_still_nearer(stages: TokenStages, tmp_path: Path) -> None:
    """On a linear scale from 0 to 0.9 doubts of 1e-4 and 1e-2 would be the same black."""
    doubt = np.full((4, 5), 0.9, np.float32)
    doubt[0], doubt[1] = 1e-4, 1e-2
    stop = replace(stages.stops[0], doubt=doubt)
    picture = drawn(replace(stages, stops=(stop,)), tmp_path / "t.png")
    # The panel of doubt is the second one of the second column; its rows are a quarter of it high.
    left, top = round((0.3 + 3.34) * 130), round((1.02 + 3.2 * 0.8 + 0.4) * 130)
    middles = [picture[top + round((row + 0.5) * 0.8 * 3.2 / 4 * 130), left + 200].astype(int) for row in range(3)]
    assert np.abs(middles[0] - middles[1]).max() > 60
    assert np.abs(middles[1] - middles[2]).max() > 60


def test_picture_of_no_doubt_at_all_is_drawn(stages: TokenStages, tmp_path: Path) -> None:
    stop = replace(stages.stops[0], doubt=np.zeros((4, 5), np.float32))
    assert drawn(replace(stages, stops=(stop,)), tmp_path / "t.png").size > 0


def vector_text(stages: TokenStages, path: Path) -> str:
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        save_token_picture(stages, path)
    return path.read_text(encoding="utf-8")


def test_vector_picture_names_counts_classes_and_layers(stages: TokenStages, tmp_path: Path) -> None:
    text = vector_text(stages, tmp_path / "t.svg")
    for words in ("vit_64x80_pause", "after layer 2: 5 stop, 15 go on", "after layer 4: 5 stop, 10 go on",
                  "the end: 10 ran through all 6 layers", "doubt of the 15 tokens, layer 4", "doubt: entropy (nats)",
                  "road", "car", "sky", "tokens 20 -&gt; 15 -&gt; 10; the surest stop first"):  # fmt: skip
        assert words in text, words


def test_picture_of_a_wrong_ending_is_refused_and_not_written(stages: TokenStages, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a plot is written as \.png"):
        save_token_picture(stages, tmp_path / "t.bmp")
    assert list(tmp_path.iterdir()) == []


def test_stages_without_a_stop_are_refused(stages: TokenStages) -> None:
    with pytest.raises(InputError, match="no token stops anywhere"):
        replace(stages, stops=())
