"""Kernels that TensorRT for RTX compiled when it loaded engines, kept for the next start.

Its engines hold no machine code: the library compiles kernels for the GPU that it finds, which takes seconds.
"""

import logging
from pathlib import Path
from typing import Any

from edgeseg.atomic import atomic_file
from edgeseg.errors import EdgesegError

_log = logging.getLogger(__name__)


class KernelCache:
    """A runtime cache of the library and its file. Keep it as long as the contexts that were made with it.

    The library looks itself whether kernels are for its version and this GPU, and compiles those that are not.

    Args:
        path: the file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cache: Any = None
        self._configs: list[Any] = []
        self._stored = b""

    def config(self, engine: Any, strategy: Any) -> Any:
        """A runtime configuration of `engine` that takes kernels from here.

        Args:
            strategy: how the context gets its scratch memory.
        """
        config = engine.create_runtime_config()
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._read()
        config.set_runtime_cache(self._cache)
        config.set_execution_context_allocation_strategy(strategy)
        self._configs.append(config)
        return config

    def save(self) -> None:
        """Write the kernels that are new. A folder that cannot be written costs time at the next start, not the run."""
        content = bytes(self._cache.serialize())
        if content == self._stored:
            return
        try:
            with atomic_file(self._path) as temporary:
                temporary.write_bytes(content)
        except (EdgesegError, OSError) as error:
            _log.info("kernels are compiled anew each time: %s", error)

    def _read(self) -> None:
        try:
            self._stored = self._path.read_bytes()
        except OSError:
            return
        if not self._cache.deserialize(self._stored):
            _log.info("%s holds no kernels for this GPU and version: they are compiled", self._path)
            self._stored = b""
