"""PyTorch's CUDA graphs for tests: a stand-in that replays on the CPU."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edgeseg.runtime.backends import torch_backend
from support.backends import Subject, bundle_with_programs


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


WAITS: list[str] = []
"""What was waited for since the stand-in was put in place: `device`, `stream`, `event` or `sleeping event`."""


class _Stream:
    def __init__(self, place: object) -> None:
        pass

    def synchronize(self) -> None:
        WAITS.append("stream")


class _Event:
    def __init__(self, blocking: bool = False) -> None:
        self._kind = "sleeping event" if blocking else "event"

    def record(self, stream: _Stream) -> None:
        assert isinstance(stream, _Stream)

    def synchronize(self) -> None:
        WAITS.append(self._kind)


@contextlib.contextmanager
def _capture(graph: RecordedGraph, *, pool: object, stream: _Stream) -> Iterator[None]:
    with graph:
        yield


def simulated_torch_gpu(monkeypatch: pytest.MonkeyPatch) -> Subject:
    """`torch:0` on the CPU: all of its code but the GPU's memory and its graphs."""
    WAITS.clear()
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda place: WAITS.append("device"))
    monkeypatch.setattr(torch.cuda, "device", lambda place: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
    monkeypatch.setattr(torch.cuda, "graph", _capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch_backend, "missing_gpu", lambda index: None)
    monkeypatch.setattr(torch_backend.TorchRunner, "_place", lambda self, torch: torch.device("cpu"))
    monkeypatch.setattr(torch_backend.GpuSteps, "_host", lambda self, shape: torch.zeros(shape, dtype=torch.uint8))
    return Subject("torch:0", lambda *entry: bundle_with_programs("torch:0", *entry))
