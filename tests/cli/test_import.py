"""`edgeseg import`: what it prints and writes, that other commands take it, and what it refuses."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from support.small_disk import small_disk

torch = pytest.importorskip("torch", reason="import needs torch")
torch.set_num_threads(1)

SMALL = "--network swiftnet_r18 --classes road,car,sky --set network.width=0.125"


def invoke(line: str):
    return CliRunner().invoke(main, line.split())


def write_swiftnet(path: Path, **changes) -> dict:
    """An eighth of a SwiftNet in the naming of fast-cwm-segmentation, with `changes` to its tensors."""
    from edgeseg.models.registry import build_network

    torch.manual_seed(0)
    network = build_network("swiftnet_r18", 3, width=0.125, spp_levels=3, head_kernel=3)
    places = (
        (r"^spp\.reduce\.", "backbone.spp.spp.spp_bn."),
        (r"^spp\.fuse\.", "backbone.spp.spp.spp_fuse."),
        (r"^spp\.levels\.(\d)\.", r"backbone.spp.spp.spp\1."),
        (r"^upsample\.(\d)\.lateral\.", r"backbone.upsample.\1.bottleneck."),
        (r"^upsample\.(\d)\.blend\.", r"backbone.upsample.\1.blend_conv."),
        (r"^head\.", "logits."),
        (r"^((?!backbone\.(?:conv|bn|layer)).*)\.bn\.", r"\1.norm."),
    )
    tensors = {}
    for name, tensor in network.state_dict().items():
        for pattern, theirs in places:
            name = re.sub(pattern, theirs, name)
        tensors[name] = tensor
    del tensors["logits.conv.bias"]
    tensors |= changes
    torch.save(
        {"epoch": 1, "state_dict": {name: tensor for name, tensor in tensors.items() if tensor is not None}}, path
    )
    return network.state_dict()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights that fit."""
    write_swiftnet(tmp_path / "cwm.pth")
    return tmp_path / "cwm.pth"


def test_whole_weights_become_a_checkpoint_that_info_reads(weights: Path, tmp_path: Path) -> None:
    result = invoke(f"import {weights} {SMALL} --out {tmp_path}/net.safetensors")
    assert result.exit_code == 0, result.output
    assert re.search(r"missing \(fresh\) +0", result.output)
    assert re.search(r"told by the file +spp_levels 3, head_kernel 3", result.output)
    assert "imported from cwm.pth (cwm)" in invoke(f"info {tmp_path}/net.safetensors").output


def test_values_are_those_of_the_file(tmp_path: Path) -> None:
    from edgeseg.training.checkpoint import load_checkpoint

    expected = write_swiftnet(tmp_path / "cwm.pth")
    invoke(f"import {tmp_path}/cwm.pth {SMALL} --out {tmp_path}/net.safetensors")
    got = load_checkpoint(tmp_path / "net.safetensors").network.state_dict()
    expected["head.conv.bias"] = torch.zeros(3)
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=0)


def test_json_lists_all_names(weights: Path, tmp_path: Path) -> None:
    result = invoke(f"import {weights} {SMALL} --json --std 1,1,1 --colour-order BGR --out {tmp_path}/net.safetensors")
    report = json.loads(result.stdout)
    assert (report["checkpoint"], report["format"], report["complete"]) == (f"{tmp_path}/net.safetensors", "cwm", True)
    assert "spp.levels.2.conv.weight" in report["matched"]
    assert (report["mean"], report["std"], report["colour_order"]) == ([0.2869, 0.3252, 0.2839], [1, 1, 1], "BGR")


def test_export_takes_the_checkpoint(weights: Path, tmp_path: Path) -> None:
    invoke(f"import {weights} {SMALL} --out {tmp_path}/net.safetensors")
    line = f"export {tmp_path}/net.safetensors --size 48x64 --rho 0.25 --out {tmp_path}/net.edgeseg"
    result = invoke(line)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "net.edgeseg" / "manifest.json").is_file()


def test_training_starts_from_the_checkpoint(weights: Path, tmp_path: Path, make) -> None:
    invoke(f"import {weights} {SMALL} --out {tmp_path}/net.safetensors")
    make.noise(tmp_path / "data", {"train": 2, "val": 2})
    (tmp_path / "r.toml").write_text(
        '[network]\nname = "swiftnet_r18"\nwidth = 0.125\nspp_levels = 3\nhead_kernel = 3\n'
        "[data]\nsize_hw = [48, 64]\n[optimiser]\nsteps = 1\nbatch = 1\n"
    )
    line = (
        f"train {tmp_path}/r.toml --data {tmp_path}/data --start-from {tmp_path}/net.safetensors --out {tmp_path}/run"
    )
    result = invoke(line)
    assert result.exit_code == 0, result.output


def test_verbose_lists_the_names_of_a_refused_import(tmp_path: Path) -> None:
    write_swiftnet(tmp_path / "w.pth", **{"backbone.bn1.bias": None})
    result = invoke(f"--verbose import {tmp_path}/w.pth {SMALL} --out {tmp_path}/net.safetensors")
    assert (result.exit_code, (tmp_path / "net.safetensors").exists()) == (2, False)
    assert "backbone.bn1.bias" in result.stdout


@pytest.mark.parametrize("partial", ["", "--partial"])
def test_narrower_weights_are_refused_and_nothing_is_written(tmp_path: Path, partial: str) -> None:
    write_swiftnet(tmp_path / "w.pth")
    line = f"import {tmp_path}/w.pth --network swiftnet_r18 --classes road,car,sky {partial}"
    result = invoke(f"{line} --out {tmp_path}/net.safetensors")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nothing in it fits network swiftnet_r18" in result.stderr
    assert not (tmp_path / "net.safetensors").exists()


def test_partial_takes_what_fits_and_says_what_is_fresh(tmp_path: Path) -> None:
    write_swiftnet(tmp_path / "w.pth", **{"backbone.bn1.bias": None})
    result = invoke(f"import {tmp_path}/w.pth {SMALL} --partial --out {tmp_path}/net.safetensors")
    assert result.exit_code == 0, result.output
    assert re.search(r"missing \(fresh\) +1: backbone\.bn1\.bias", result.output)


@pytest.mark.parametrize(
    ("spelled", "count"),
    [("camvid", 11), ("cityscapes", 19), ("street", 11), ("a,b", 2), ("names.txt", 4), ("n.toml", 5)],
)
def test_classes_are_a_set_names_a_data_set_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelled: str, count: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("wall\nfloor\n\ndoor\nlamp\n")
    Path("n.toml").write_text('name = "x"\n[classes]\nnames = ["a", "b", "c", "d", "e"]\n')
    write_swiftnet(tmp_path / "w.pth")
    line = f"import w.pth --network swiftnet_r18 --classes {spelled} --set network.width=0.125 --partial --json"
    report = json.loads(invoke(f"{line} --out net.safetensors").stdout)
    heads = {entry["name"]: entry["in_network"][0] for entry in report["differing"]}
    assert heads == {"head.conv.weight": count, "head.conv.bias": count}


BAD = {
    "pickle": "holds a pickled object",
    "truncated": "truncated or damaged",
    "empty": "an empty file",
    "shape": "1 of another shape: backbone.bn1.bias is (5,), expected (8,)",
    "name": "1 missing in the file: backbone.bn1.bias; 1 without a place in the network: backbone.bn9.bias",
    "unknown": "weights of no format that is known",
    "folder": "a folder, not a file",
    "absent": "no such file",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_in_one_line_and_nothing_is_written(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bad.pth"
    write_swiftnet(path)
    if case == "pickle":
        torch.save({"state_dict": {"a": torch.zeros(1)}, "args": tmp_path}, path)
    elif case in ("truncated", "empty"):
        path.write_bytes(path.read_bytes()[: 3000 if case == "truncated" else 0])
    elif case == "shape":
        write_swiftnet(path, **{"backbone.bn1.bias": torch.zeros(5)})
    elif case == "name":
        write_swiftnet(path, **{"backbone.bn1.bias": None, "backbone.bn9.bias": torch.zeros(8)})
    elif case == "unknown":
        torch.save({"a": torch.zeros(1)}, path)
    elif case in ("folder", "absent"):
        path.unlink()
        if case == "folder":
            path.mkdir()
    result = invoke(f"import {path} {SMALL} --out {tmp_path}/made/net.safetensors")
    assert (result.exit_code, result.stdout) == (2, "")
    assert BAD[case] in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--out net.pth", "--out is a .safetensors file"),
        ("--set width=0.25", "expected network.OPTION=VALUE"),
        ("--set network.width=0.25", "gives network.width twice"),
        ("--set network.depth=3", "no option depth"),
        ("--set network.spp_levels=[3]", "spp_levels [3]"),
        ("--network hal9000", "unknown network 'hal9000'"),
        ("--classes nowhere", "no class set, data set or file of that name"),
        ("--mean 1,2", "--mean is three numbers"),
        ("--std 1,0,1", "--std is more than 0"),
        ("--format timm", "not of format timm"),
    ],
)
def test_bad_option_is_refused_and_nothing_is_written(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(f"import {weights} {SMALL} --out net.safetensors {change}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["cwm.pth"]


def test_input_is_not_written_over(tmp_path: Path) -> None:
    write_swiftnet(tmp_path / "w.safetensors")
    before = (tmp_path / "w.safetensors").read_bytes()
    result = invoke(f"import {tmp_path}/w.safetensors {SMALL} --out {tmp_path}/w.safetensors")
    assert result.exit_code == 2
    assert "are the same file" in result.stderr
    assert (tmp_path / "w.safetensors").read_bytes() == before


def test_full_disk_is_named_and_nothing_is_left(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        result = invoke(f"import {weights} {SMALL} --out {disk}/net.safetensors")
        assert result.exit_code == 2
        assert "No space left on device" in result.stderr
        assert list(disk.iterdir()) == []
