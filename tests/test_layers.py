"""The layers of the architecture, held against the imports of every module."""

import ast
from pathlib import Path

import pytest

FOLDERS = {
    "edgeseg": "edgeseg",
    "edgeseg.export": "export",
    "edgeseg.runtime": "runtime",
    "edgeseg.profiles": "profiles",
}
LEAVES = "edgeseg.accuracy edgeseg.errors edgeseg.optional edgeseg.atomic edgeseg.classes edgeseg.config"
LEAVES += " edgeseg.token_plan edgeseg.bundle edgeseg.device_profile edgeseg.metrics edgeseg.data edgeseg.shipped"
LEAVES += " edgeseg.calibration_record edgeseg.manifest edgeseg.cache_folder"
ALLOWED = {
    "leaves": {"leaves"},
    "models": {"models", "leaves"},
    "training": {"training", "models", "leaves"},
    "runtime": {"runtime", "leaves"},
    "export": {"export", "models", "runtime", "leaves", "training"},
    "cli": {"cli", "leaves"},
}
HEAVY = {
    "torch",
    "onnx",
    "onnxscript",
    "tensorrt",
    "safetensors",
    "tensorboard",
    "matplotlib",
    "transformers",
    "openvino",
}


def layer_of(module: str) -> str:
    for layer in ("models", "training", "runtime", "export", "cli"):
        if module == f"edgeseg.{layer}" or module.startswith(f"edgeseg.{layer}."):
            return layer
    if any(module == leaf or module.startswith(f"{leaf}.") for leaf in LEAVES.split()):
        return "leaves"
    return {"edgeseg": "leaves", "edgeseg.__main__": "cli"}.get(module, "unknown")


def module_files(repository: Path) -> dict[str, Path]:
    files = {}
    for package, folder in FOLDERS.items():
        for path in sorted((repository / folder).rglob("*.py")):
            parts = path.relative_to(repository / folder).with_suffix("").parts
            files[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return files


def imports(path: Path, *, top_level_only: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes: list[ast.AST] = []
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        nodes.append(node)
        type_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        inside_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if not (top_level_only and (inside_function or type_checking)):
            stack.extend(ast.iter_child_nodes(node))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module in ("edgeseg", "edgeseg.runtime", "edgeseg.export"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_modules_import_only_from_the_layers_below(repository):
    wrong = []
    for module, path in module_files(repository).items():
        layer = layer_of(module)
        for target in imports(path, top_level_only=layer in ("cli",)):
            if target.startswith("edgeseg") and layer_of(target) not in ALLOWED.get(layer, set()) | {"unknown"}:
                wrong.append(f"{module} ({layer}) imports {target} ({layer_of(target)})")
    assert not wrong


def test_every_module_belongs_to_a_layer(repository):
    unknown = [module for module in module_files(repository) if layer_of(module) == "unknown"]
    assert [module for module in unknown if not module.startswith("edgeseg.profiles")] == []


@pytest.mark.parametrize("layer", ["leaves", "runtime", "cli"])
def test_no_heavy_package_is_imported_at_the_top_of(repository, layer):
    wrong = [
        f"{module} imports {target}"
        for module, path in module_files(repository).items()
        if layer_of(module) == layer
        for target in imports(path, top_level_only=True)
        if target.split(".")[0] in HEAVY
    ]
    assert not wrong


def test_no_module_has_a_name_that_says_nothing_or_shadows_a_package(repository):
    banned = {"utils", "util", "common", "helpers", "misc", "onnx", "tensorrt", "torch"}
    assert [module for module in module_files(repository) if module.rsplit(".", 1)[-1] in banned] == []
