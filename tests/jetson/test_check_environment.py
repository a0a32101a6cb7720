import subprocess
import sys

import pytest

from support.jetson_root import write

CV2 = '__version__ = "4.8.0"\ndef getBuildInformation():\n    return "Video I/O:\\n    GStreamer:  {} (1.20.3)\\n"\n'


@pytest.fixture
def check(jetson, tmp_path):
    """Files of a folder of packages -> what the check says of a Python that has those alone."""

    def checked(*arguments: str, **files: str) -> subprocess.CompletedProcess[str]:
        packages = tmp_path / "packages"
        packages.mkdir(exist_ok=True)
        for name, text in files.items():
            write(packages / f"{name}.py", text)
        code = (
            f"import sys; sys.path = [p for p in sys.path if 'site-packages' not in p] + [{str(packages)!r}]; "
            f"sys.prefix = {str(tmp_path)!r}; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]; "
            f"sys.argv = ['check', *{list(arguments)!r}]; import runpy; "
            f"runpy.run_path({str(jetson / 'check_environment.py')!r}, run_name='__main__')"
        )
        return subprocess.run(
            [sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path
        )

    return checked


def test_the_systems_tensorrt_and_opencv_are_enough(check):
    done = check("--system", tensorrt='__version__ = "10.3.0"', cv2=CV2.format("YES"))
    assert done.returncode == 0, done.stderr
    assert "TensorRT 10.3.0" in done.stdout
    assert "OpenCV 4.8.0 with GStreamer" in done.stdout


@pytest.mark.parametrize(
    ("tensorrt", "cv2", "words"),
    [
        ("import nothing_of_this_name", CV2.format("YES"), "tensorrt cannot be imported (ModuleNotFoundError"),
        ("raise OSError('libnvdla_compiler.so')", CV2.format("YES"), "OSError: libnvdla_compiler.so"),
        ('__version__ = "8.5.2"', CV2.format("YES"), "TensorRT 8.5.2 is too old"),
        ('__version__ = "10.3.0"', CV2.format("NO"), "has no GStreamer, so no CSI camera"),
        ('__version__ = "10.3.0"', "raise ImportError('numpy.core.multiarray')", "cv2 cannot be imported (ImportError"),
    ],
)
def test_what_is_missing_is_named_with_the_way_out(check, tensorrt, cv2, words):
    done = check("--system", tensorrt=tensorrt, cv2=cv2)
    assert done.returncode == 2
    assert words in done.stderr
    assert "sudo apt install" in done.stderr or "expected 10 or later" in done.stderr


def test_packages_of_pip_that_hide_the_systems_are_named(check, tmp_path):
    for name in ("opencv_python_headless", "tensorrt_cu12"):
        write(
            tmp_path / f"packages/{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0"
        )
    done = check(tensorrt='__version__ = "10.3.0"', cv2=CV2.format("YES"))
    assert done.returncode == 2
    assert "pip's opencv-python-headless, tensorrt-cu12 hide the system's" in done.stderr


def test_all_that_edgeseg_needs_is_looked_for(check):
    done = check(tensorrt='__version__ = "10.3.0"', cv2=CV2.format("YES"))
    assert done.returncode == 2
    for name in ("numpy", "onnxruntime", "onnx", "cuda.bindings.driver", "edgeseg"):
        assert f"{name} cannot be imported" in done.stderr
