"""The tiny bundles of the runtime's tests, for the commands that run them."""

import importlib.util
from pathlib import Path

_path = Path(__file__).parents[1] / "runtime" / "conftest.py"
_spec = importlib.util.spec_from_file_location("runtime_fixtures", _path)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

bundle, own_bundle, graphs, frame = _module.bundle, _module.own_bundle, _module.graphs, _module.frame
