import json

from click.testing import CliRunner

from edgeseg.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["info", *map(str, arguments)])


def test_info_tells_what_a_bundle_holds(bundle):
    result = run(bundle.root, "--verify", "--json")
    values = json.loads(result.stdout)
    assert values["bundle"] == "tiny"
    assert values["files"] == "all as in the manifest"
    assert [row["roles"] for row in values["configurations"]] == ["step", "init phase1 phase0", "init step"]


def test_info_exits_with_2_when_a_file_is_damaged(own_bundle):
    path = own_bundle.root / "plain_32x48.step.onnx"
    path.write_bytes(path.read_bytes() + b" ")
    assert run(own_bundle.root).exit_code == 0
    assert run(own_bundle.root, "--verify").exit_code == 2


def test_info_exits_with_2_when_the_file_is_none_of_ours(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    assert "none of ours" in run(tmp_path / "x.txt").stderr
    assert "nothing at" in run(tmp_path / "y.txt").stderr
