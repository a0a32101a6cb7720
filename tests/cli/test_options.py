"""Options that several commands share: what they refuse, and how far work is where there is no terminal."""

import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.cli.options import _lines_now_and_then, measuring_bar


@pytest.mark.parametrize("rate", ["nan", "inf", "0", "-1"])
@pytest.mark.parametrize(
    "command",
    [
        "profile a --fps",
        "pick a --fps",
        "tune a --data street --fps",
        "simulate a --fps",
        "run a --fps",
        "show a --fps",
    ],
)
def test_frame_rate_that_is_none_is_refused_by_its_option_before_anything_is_read(command, rate):
    result = CliRunner().invoke(main, [*command.split(), rate])
    assert result.exit_code == 2
    assert "Invalid value for '--fps'" in result.stderr


def test_long_work_says_now_and_then_how_far_it_is(capsys):
    now_s = 100.0
    tell = _lines_now_and_then("measuring", clock=lambda: now_s)
    for step in range(1, 6):
        now_s += 10
        tell("plain_32x48", step / 10)
    # Lines at 20 s and at 40 s.
    assert capsys.readouterr().err.splitlines() == ["measuring: 20 %, plain_32x48", "measuring: 40 %, plain_32x48"]


def test_short_work_says_nothing_when_there_is_no_terminal(capsys):
    with measuring_bar() as progress:
        progress("plain_32x48", 1.0)
    assert capsys.readouterr().err == ""
