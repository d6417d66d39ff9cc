"""What holds for all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import matplotlib
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of the tests, and the tests out of it; fonts need not be searched again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR", matplotlib.get_cachedir()))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a GPU, or a program, where there is none; pytest counts it as deselected."""
    left_out = [item for item in items if _lacks(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _lacks(item: pytest.Item) -> bool:
    programs = [marker.args[0] for marker in item.iter_markers("program")]
    gpu = item.get_closest_marker("gpu") is not None and not torch.cuda.is_available()
    return gpu or not all(shutil.which(program) for program in programs)
