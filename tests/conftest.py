"""Options and fixtures that every test may use."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeseg  # noqa: F401  (before any test loads ONNX Runtime: see there)

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--camvid",
        default=str(REPOSITORY.parent / "shared" / "data" / "camvid"),
        help="folder of the CamVid data set; tests on real video skip without it",
    )


def pytest_configure() -> None:
    # A shell starts what runs in its background deaf to SIGINT, and so would be the commands that tests interrupt.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept for the next time is kept for these tests alone, and the user's own is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def camvid_root(request: pytest.FixtureRequest) -> Path:
    """Folder of CamVid: train/, trainannot/, val/, valannot/."""
    root = Path(request.config.getoption("--camvid"))
    if not (root / "valannot").is_dir():
        pytest.skip(f"CamVid is not at {root}: give its folder by --camvid")
    return root


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY
