"""Reading other tools' files: tensors only, and a clear text for everything else."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgeseg.classes import CAMVID
from edgeseg.errors import InputError
from edgeseg.models.registry import build_network
from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint
from edgeseg.training.foreign_weights.files import read_foreign_tensors

TENSORS = {"a.weight": torch.arange(1000.0).reshape(10, 100), "a.count": torch.tensor(3)}


class Explodes:
    """An object that creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def same(got, expected=TENSORS) -> None:
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", ["state_dict", "model", None])
def test_torch_files_are_read(tmp_path: Path, legacy: bool, key: str | None) -> None:
    content = TENSORS if key is None else {"epoch": 1, key: TENSORS, "optimizer": {"state": {0: torch.zeros(2)}}}
    torch.save(content, tmp_path / "w", _use_new_zipfile_serialization=not legacy)
    same(read_foreign_tensors(tmp_path / "w"))


def test_numpy_score_beside_the_weights_is_no_hindrance(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS, "best_pred": np.float64(0.71)}, tmp_path / "model_best.pth")
    same(read_foreign_tensors(tmp_path / "model_best.pth"))


def test_kind_shows_in_the_bytes_not_in_the_name(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.pth")
    same(read_foreign_tensors(tmp_path / "w.pth"))


def test_bfloat16_of_jax_is_read_from_npz(tmp_path: Path) -> None:
    values = torch.tensor([1.5, -2.0, 0.25])
    np.savez(tmp_path / "w.npz", a=values.bfloat16().view(torch.int16).numpy().view("V2"))
    same(read_foreign_tensors(tmp_path / "w.npz"), {"a": values})


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_object_is_refused_and_never_made(tmp_path: Path, legacy: bool) -> None:
    content = {"state_dict": TENSORS, "args": Explodes(tmp_path / "mark")}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"holds a pickled object \(\S+\), which is not read.*torch\.save\(network"):
        read_foreign_tensors(tmp_path / "w.pth")
    assert not (tmp_path / "mark").exists()


def test_bare_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": Explodes(tmp_path / "mark")}))
    with pytest.raises(InputError, match=r"w\.pkl: (holds a pickled object|not a whole PyTorch)"):
        read_foreign_tensors(tmp_path / "w.pkl")
    assert not (tmp_path / "mark").exists()


def test_object_array_in_npz_is_refused_and_never_made(tmp_path: Path) -> None:
    array = np.empty(1, object)
    array[0] = Explodes(tmp_path / "mark")
    np.savez(tmp_path / "w.npz", a=array)
    with pytest.raises(InputError, match="holds a pickled object, which is not read"):
        read_foreign_tensors(tmp_path / "w.npz")
    assert not (tmp_path / "mark").exists()


def written(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "npz":
        np.savez(buffer, **{name: tensor.numpy() for name, tensor in TENSORS.items()})
    elif kind == "safetensors":
        from safetensors.torch import save

        buffer.write(save(TENSORS))
    else:
        torch.save(TENSORS, buffer, _use_new_zipfile_serialization=kind == "torch")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["torch", "torch legacy", "npz", "safetensors"])
@pytest.mark.parametrize("keep", [3, 9, 200, -1000, -1])
def test_truncated_file_is_refused(tmp_path: Path, kind: str, keep: int) -> None:
    (tmp_path / "w").write_bytes(written(kind)[:keep])
    with pytest.raises(InputError, match="truncated"):
        read_foreign_tensors(tmp_path / "w")


@pytest.mark.parametrize("kind", ["torch", "npz"])
def test_damaged_zip_is_refused(tmp_path: Path, kind: str) -> None:
    whole = bytearray(written(kind))
    start = zipfile.ZipFile(io.BytesIO(bytes(whole))).infolist()[0].header_offset
    whole[start + 30 : start + 400] = b"\0" * 370
    (tmp_path / "w").write_bytes(bytes(whole))
    with pytest.raises(InputError, match=r"truncated(,| or) damaged"):
        read_foreign_tensors(tmp_path / "w")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n" + b"0" * 100, "not a whole PyTorch, npz or safetensors file"),
        (b"<html>not found</html>", "a text file"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_foreign_tensors(tmp_path / "w.pth")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file"):
        read_foreign_tensors(tmp_path / "none.pth")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder, not a file of weights"):
        read_foreign_tensors(tmp_path)


@pytest.mark.parametrize("content", [{"epoch": 3}, {}, [torch.zeros(1)], {"model": {"a": 1}}])
def test_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds no tensors"):
        read_foreign_tensors(tmp_path / "w.pth")


def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2), "b": torch.tensor([1.0, float("nan")])}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="b holds numbers that are not finite"):
        read_foreign_tensors(tmp_path / "w.pth")


def test_own_checkpoint_is_refused_as_already_one(tmp_path: Path) -> None:
    meta = CheckpointMeta("swiftnet_r18", {"width": 0.125}, CAMVID)
    save_checkpoint(tmp_path / "own.safetensors", build_network("swiftnet_r18", 11, width=0.125), meta)
    with pytest.raises(InputError, match="already a checkpoint of edgeseg"):
        read_foreign_tensors(tmp_path / "own.safetensors")


@pytest.mark.parametrize(
    ("content", "first_line"),
    [
        ("a text file that someone took for weights\n", "a text file that someone took for weights"),
        ("Überhaupt keine Gewichte\r\n" * 200, "Überhaupt keine Gewichte"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "version https://git-lfs"),
        ("\n\n<!DOCTYPE html>\n<html>", "<!DOCTYPE html>"),
    ],
    ids=["text", "long and accented", "pointer of git-lfs", "page"],
)
def test_text_file_is_refused_with_its_first_line(tmp_path: Path, content: str, first_line: str) -> None:
    (tmp_path / "w.pth").write_bytes(content.encode())
    with pytest.raises(InputError) as refused:
        read_foreign_tensors(tmp_path / "w.pth")
    assert str(refused.value).startswith(f"{tmp_path}/w.pth: a text file ('{first_line}")
    assert str(refused.value).endswith(
        "| a page or a pointer may have been fetched in its place: fetch the file itself"
    )


def test_file_of_no_known_kind_is_refused_in_our_own_words(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(bytes(range(128, 256)) * 20)
    with pytest.raises(InputError) as refused:
        read_foreign_tensors(tmp_path / "w.pth")
    assert str(refused.value) == (
        f"{tmp_path}/w.pth: not a whole PyTorch, npz or safetensors file | it is truncated, damaged or something else"
    )
