"""Programs of PyTorch for tests: bundles with them, and a stand-in for CUDA graphs that replays on the CPU."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edgeseg.bundle import Bundle, FileRecord, Programs, file_sha256, save_manifest
from edgeseg.export.bundle_writer import program_file, read_variant
from edgeseg.export.torch_program import with_programs
from edgeseg.runtime.backends import torch_backend
from edgeseg.runtime.session import Session, load
from support.backends import Subject


def bundle_with_programs(bundle: Bundle) -> Bundle:
    """A copy of `bundle`, beside it, with programs of the form torch; made once."""
    root = bundle.root.with_name(f"{bundle.root.stem}-torch.edgeseg")
    if root.exists():
        return Bundle.open(root)
    shutil.copytree(bundle.root, root)
    files = dict(bundle.files)
    entries = []
    for entry in bundle.configurations:
        saved = with_programs(read_variant(bundle, entry), ["torch"]).programs["torch"]
        names = {role: program_file(entry.name, role, "torch") for role in saved.content}
        for role, name in names.items():
            (root / name).write_bytes(saved.content[role])
            files[name] = FileRecord(file_sha256(root / name), (root / name).stat().st_size)
        entries.append(replace(entry, programs={"torch": Programs(names)}))
    save_manifest(replace(bundle, root=root, configurations=tuple(entries), files=files))
    return Bundle.open(root)


class TorchSubject(Subject):
    """A device that runs programs, which are made when they are needed."""

    def load(self, bundle: Bundle, configuration: str) -> Session:
        return load(bundle_with_programs(bundle), device=self.device, configuration=configuration, threads=1)


class RecordedGraph(TorchDispatchMode):
    """In the place of `torch.cuda.CUDAGraph`: keeps the operators of its capture, replays them on the same tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        self._calls.append((function, args, kwargs or {}, made))
        return made

    def replay(self) -> None:
        """The operators once more, into the tensors that the capture made."""
        for function, args, kwargs, before in self._calls:
            made = function(*args, **kwargs)
            for old, new in zip(_tensors(before), _tensors(made), strict=True):
                if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


def _tensors(made: Any) -> list[torch.Tensor]:
    values = made if isinstance(made, tuple | list) else [made]
    return [value for value in values if isinstance(value, torch.Tensor)]


class _Stream:
    def __init__(self, place: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


@contextlib.contextmanager
def _capture(graph: RecordedGraph, *, pool: object, stream: _Stream) -> Iterator[None]:
    with graph:
        yield


def simulated_torch_gpu(monkeypatch: pytest.MonkeyPatch) -> TorchSubject:
    """`torch:0` on the CPU: all of its code but the GPU's memory and its graphs."""
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "device", lambda place: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
    monkeypatch.setattr(torch.cuda, "graph", _capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch_backend, "missing_gpu", lambda index: None)
    monkeypatch.setattr(torch_backend.TorchRunner, "_place", lambda self, torch: torch.device("cpu"))
    monkeypatch.setattr(torch_backend.GpuSteps, "_host", lambda self, shape: torch.zeros(shape, dtype=torch.uint8))
    return TorchSubject("torch:0")
