"""Engines in their cache: what fits is found, and what does not says what it was built for and how to build it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.errors import ArtifactError, InputError
from edgeseg.runtime.engine_cache import (
    EngineRecord,
    engine_folder,
    find_engine,
    graph_sha256,
    store_engine,
    stored_engine,
)
from edgeseg.runtime.engine_key import EngineHost, EngineKey
from support.small_disk import small_disk

ORIN = EngineHost("tensorrt:0", "tensorrt", "10.3.0", "8.7", "Orin")
OPTIONS = {"workspace_mb": None, "version_compatible": False}
COMMAND = r"edgeseg build \S*tiny.edgeseg --device tensorrt:0 --configuration plain_32x48"


@pytest.fixture
def entry(bundle: Bundle) -> BundleConfiguration:
    return bundle.configuration("plain_32x48")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Of a bundle that is not read."""
    return tmp_path / "tiny.edgeseg"


def key(entry: BundleConfiguration, **changes: object) -> EngineKey:
    made = EngineKey(graph_sha256(entry, "step"), "tensorrt", "10.3.0", ("8.7",), "Orin", OPTIONS)
    return replace(made, **changes)  # type: ignore[arg-type]


def put(root: Path, entry: BundleConfiguration, plan: bytes = b"an engine", **changes: object) -> EngineRecord:
    return store_engine(root, entry, "step", key(entry, **changes), plan, build_s=1.25)


def test_stored_engine_is_found_with_its_facts(root: Path, entry: BundleConfiguration) -> None:
    stored = store_engine(root, entry, "step", key(entry), b"an engine", build_s=1.25, layers=[{"name": "conv"}])
    found = find_engine(root, entry, "step", ORIN)
    assert found == stored
    assert found.read() == b"an engine"
    assert (found.build_s, found.size_bytes, found.layers) == (1.25, 9, ({"name": "conv"},))
    assert found.path.parent == engine_folder(root) == root.parent / "tiny.engines"
    assert found.path.read_bytes() == b"an engine"


def test_missing_engine_names_the_command(root: Path, entry: BundleConfiguration) -> None:
    with pytest.raises(
        ArtifactError, match=rf"no engine of plain_32x48 \(step\) fits TensorRT 10.3.0 on Orin.*{COMMAND}"
    ):
        find_engine(root, entry, "step", ORIN)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ({"version": "10.16.2"}, "it is for TensorRT 10.3.0"),
        ({"compute_capability": "11.0", "gpu": "Thor"}, "it is for compute capability 8.7"),
        ({"gpu": "Orin Nano"}, "it is for Orin"),
        ({"library": "tensorrt_rtx"}, "it is for TensorRT"),
    ],
    ids=["version", "capability", "gpu", "library"],
)
def test_engine_of_another_host_says_what_it_was_built_for(
    root: Path, entry: BundleConfiguration, host: dict[str, str], reason: str
) -> None:
    put(root, entry)
    expected = rf"built for TensorRT 10.3.0 on Orin \(compute capability 8.7\): {reason} \| build it here: {COMMAND}"
    with pytest.raises(ArtifactError, match=expected):
        find_engine(root, entry, "step", replace(ORIN, **host))


def test_stale_engine_is_refused(root: Path, entry: BundleConfiguration) -> None:
    put(root, entry)
    with pytest.raises(ArtifactError, match="an earlier content of the graph"):
        find_engine(root, replace(entry, digest="0" * 64), "step", ORIN)


def test_engine_of_other_options_is_refused_by_their_names(root: Path, entry: BundleConfiguration) -> None:
    put(root, entry)
    with pytest.raises(ArtifactError, match=r"other builder options.*workspace_mb None instead of 64"):
        find_engine(root, entry, "step", ORIN, options={**OPTIONS, "workspace_mb": 64})
    assert find_engine(root, entry, "step", ORIN, options=OPTIONS).key.options == OPTIONS


def test_last_built_of_several_that_fit_is_found(root: Path, entry: BundleConfiguration) -> None:
    put(root, entry, b"first")
    second = put(root, entry, b"second", options={**OPTIONS, "workspace_mb": 64})
    record = engine_folder(root) / f"plain_32x48.step.tensorrt.{second.key.digest}.json"
    record.write_text(record.read_text().replace(second.built_at, "2999-01-01T00:00:00+00:00"))
    assert find_engine(root, entry, "step", ORIN).read() == b"second"
    assert len(list(engine_folder(root).glob("*.engine"))) == 2


@pytest.mark.parametrize(
    ("version", "host", "fits"),
    [
        ("10.3.0", "10.16.2", True),
        ("10.3.0", "11.4.1", True),
        ("10.16.2", "10.3.0", False),
        ("10.3.0", "12.0.0", False),
    ],
)
def test_version_compatible_engine_goes_forward_one_major_version(
    root: Path, entry: BundleConfiguration, version: str, host: str, fits: bool
) -> None:
    made = key(entry, version=version, options={"version_compatible": True})
    assert (made.misfit(replace(ORIN, version=host)) is None) == fits


@pytest.mark.parametrize(
    ("capability", "fits"), [("8.0", True), ("8.7", False), ("12.0", True), ("12.1", True), ("7.5", False)]
)
def test_portable_engine_fits_its_compute_capabilities(entry: BundleConfiguration, capability: str, fits: bool) -> None:
    made = key(entry, library="tensorrt_rtx", version="1.7.1", compute_capabilities=("8.0", "12.0+"), gpu=None)
    host = EngineHost("tensorrt-rtx:0", "tensorrt_rtx", "1.7.1", capability, "some RTX")
    assert (made.misfit(host) is None) == fits


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: bytes([content[0] ^ 1]) + content[1:], "its SHA-256 is not its record's"),
        (lambda content: content[:-1], "got 8 bytes, expected 9"),
    ],
    ids=["one byte changed", "truncated"],
)
def test_damaged_engine_is_refused(root: Path, entry: BundleConfiguration, damage, words: str) -> None:
    record = put(root, entry)
    record.path.write_bytes(damage(record.path.read_bytes()))
    for read in (lambda: find_engine(root, entry, "step", ORIN), record.read):
        with pytest.raises(ArtifactError, match=rf"{words} \| build it again: {COMMAND}"):
            read()


def test_engine_that_vanished_is_refused(root: Path, entry: BundleConfiguration) -> None:
    put(root, entry).path.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        find_engine(root, entry, "step", ORIN)


RECORD_DAMAGE = pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:40], "is not readable"),
        (lambda text: text.replace("10.3.0", "10.16.2"), "was changed after it was written"),
        (lambda text: text.replace('"format_version": 1', '"format_version": 9'), "version 9"),
    ],
    ids=["truncated", "edited", "future"],
)


def damage_record(root: Path, record: EngineRecord, change) -> Path:
    path = engine_folder(root) / f"plain_32x48.step.tensorrt.{record.key.digest}.json"
    path.write_text(change(path.read_text()))
    return path


@RECORD_DAMAGE
def test_damaged_record_is_no_engine_and_named_when_there_is_no_other(root, entry, change, words: str) -> None:
    damage_record(root, put(root, entry), change)
    with pytest.raises(ArtifactError, match=rf"no engine of plain_32x48 .*{words}.* \| build it here: {COMMAND}"):
        find_engine(root, entry, "step", ORIN)


@RECORD_DAMAGE
def test_damaged_record_is_one_warning_when_another_engine_fits(root, entry, caplog, change, words: str) -> None:
    engine = put(root, entry)
    damage_record(root, put(root, entry, b"other", options={**OPTIONS, "workspace_mb": 64}), change)
    assert find_engine(root, entry, "step", ORIN) == engine
    (warning,) = caplog.messages
    assert words in warning
    assert warning.endswith("another one is taken")


@RECORD_DAMAGE
def test_damaged_record_is_no_stored_engine_and_one_warning(root, entry, caplog, change, words: str) -> None:
    damage_record(root, put(root, entry), change)
    assert stored_engine(root, entry, "step", key(entry)) is None
    (warning,) = caplog.messages
    assert words in warning


def test_damaged_record_goes_when_an_engine_of_its_graph_is_stored(root: Path, entry: BundleConfiguration) -> None:
    damaged = damage_record(root, put(root, entry, b"old", version="10.2.0"), lambda text: text[:40])
    engine = put(root, entry)
    assert not damaged.exists()
    assert [path.name for path in engine_folder(root).glob("*.engine")] == [engine.path.name]


def test_record_cannot_name_a_file_elsewhere(root: Path, entry: BundleConfiguration, tmp_path: Path) -> None:
    put(root, entry)
    (record,) = engine_folder(root).glob("*.json")
    values = json.loads(record.read_text())
    values["engine"]["file"] = "../../etc/passwd"
    record.write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match=r"tiny\.engines/passwd is missing"):
        find_engine(root, entry, "step", ORIN)


def test_engine_of_the_same_key_takes_the_place_of_the_one_before(root: Path, entry: BundleConfiguration) -> None:
    put(root, entry, b"before")
    after = put(root, entry, b"after")
    assert [path.name for path in engine_folder(root).glob("*.engine")] == [after.path.name]
    assert find_engine(root, entry, "step", ORIN).read() == b"after"


def test_engines_of_earlier_contents_are_removed_and_other_graphs_kept(root: Path, entry: BundleConfiguration) -> None:
    store_engine(root, entry, "init", key(entry), b"another role", build_s=0)
    put(root, replace(entry, digest="0" * 64), b"stale", graph_sha256="0" * 64)
    put(root, entry, b"fresh")
    contents = sorted(path.read_bytes() for path in engine_folder(root).glob("*.engine"))
    assert contents == [b"another role", b"fresh"]


def test_exact_key_is_asked_for_by_stored_engine(root: Path, entry: BundleConfiguration) -> None:
    put(root, entry)
    assert stored_engine(root, entry, "step", key(entry)) is not None
    assert stored_engine(root, entry, "step", key(entry, version="10.4.0")) is None
    assert stored_engine(root, entry, "init", key(entry)) is None


def test_full_disk_leaves_the_cache_as_it_was(tmp_path: Path, entry: BundleConfiguration) -> None:
    with small_disk(tmp_path, 64 << 10) as disk:
        root = disk / "tiny.edgeseg"
        put(root, entry, b"before")
        before = sorted(path.name for path in engine_folder(root).iterdir())
        with pytest.raises(InputError, match="make room"):
            put(root, entry, b"x" * (128 << 10))
        assert sorted(path.name for path in engine_folder(root).iterdir()) == before
        assert find_engine(root, entry, "step", ORIN).read() == b"before"


def test_key_of_an_unknown_library_is_refused(entry: BundleConfiguration) -> None:
    with pytest.raises(ArtifactError, match="known: tensorrt, tensorrt_rtx"):
        key(entry, library="tensorflow")


def test_cache_of_the_bundle_in_the_current_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root := tmp_path / "tiny.edgeseg").mkdir()
    monkeypatch.chdir(root)
    assert engine_folder(Path(".")) == tmp_path / "tiny.engines"
