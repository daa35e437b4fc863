"""Shared by all tests: shapes checked at run time, real pictures, the shared data folder."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# jaxtyping's annotations are checked by beartype in every module of `fields`; the hook
# must be in place before the first import of them
from jaxtyping import install_import_hook

install_import_hook("fields", "beartype.beartype")

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from fields.kernels import build  # noqa: E402

# the same examples in every run; `pytest --hypothesis-profile=explore` looks for new ones
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.register_profile("explore", max_examples=1000)
hypothesis.settings.load_profile("same")

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "assets"


def pytest_configure(config: pytest.Config) -> None:
    # small tensors: a second thread costs more than it gives, most of all on a busy machine
    torch.set_num_threads(1)
    if not hasattr(config, "workerinput"):  # once, before the workers of pytest-xdist start
        _build_kernels()


def _build_kernels() -> None:
    """Compile the CPU kernels now: the first fit would say so on stderr, and two would do it."""
    if build.compiler() is not None:
        for name in build.KERNELS:
            build.library(name)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real signals beside the project, where there is one."""
    path = Path(os.environ.get("INR_SHARED", ROOT.parent / "shared")) / "data"
    if not path.is_dir():
        pytest.skip(f"no signals at {path}: set INR_SHARED")
    return path


@pytest.fixture(scope="session")
def camera() -> np.ndarray:
    """scikit-image's camera, 512 x 512, uint8."""
    import imageio.v3

    return np.asarray(imageio.v3.imread(ASSETS / "camera.png"))


@pytest.fixture(scope="session")
def coffee() -> np.ndarray:
    """scikit-image's coffee, 400 x 600 x 3, uint8."""
    import imageio.v3

    return np.asarray(imageio.v3.imread(ASSETS / "coffee.png"))


@pytest.fixture
def patch(coffee: np.ndarray) -> np.ndarray:
    """A 36 x 52 piece of a photograph with detail in it, RGB."""
    return coffee[170:206, 240:292]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium, for pages."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium here")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()
