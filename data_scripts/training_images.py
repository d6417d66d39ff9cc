"""Training images for `ctflow train`: one HDF5 dataset, written whole or not at all, and settings for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

DATASET = "images"


class Images:
    """A growing dataset of images (images, height, width)."""

    def __init__(self, stored: h5py.Dataset) -> None:
        self.stored = stored

    def __len__(self) -> int:
        return len(self.stored)

    def append(self, images: NDArray[Any]) -> None:
        """Add images (n, height, width) at the end."""
        start = len(self.stored)
        self.stored.resize(start + len(images), axis=0)
        self.stored[start:] = images


@contextmanager
def writing(target: Path, shape: tuple[int, int], unit: str, dtype: Any = np.float16) -> Iterator[Images]:
    """Write images of a shape beside their final place, where they appear when all are there."""
    partial = target.with_name(f"{target.name}.part")
    with h5py.File(partial, "w") as file:
        stored = file.create_dataset(
            DATASET, (0, *shape), dtype, maxshape=(None, *shape), chunks=(1, *shape), compression="lzf"
        )
        stored.attrs["units"] = unit
        yield Images(stored)
    partial.replace(target)


def write_settings(
    target: Path, name: str, images: Path, unit: str, *, validation: Path | None = None, **more: Any
) -> None:
    """Write a YAML file for `ctflow train`, unless there is one, which may have been edited.

    `more` are settings beside or in place of those of images of attenuation.
    """
    if target.exists():
        return
    settings = {
        "name": name,
        "output": name,
        "images": [{"file": images.name, "dataset": DATASET, "unit": unit}],
        "representation": {"scale": 0.02, "offset": 0.02, "unit": "1/mm"},
        "crops": [64, 96, 128],
        "minutes": 60,
        **more,
    }
    if validation is not None:
        settings["validation"] = [{"file": validation.name, "dataset": DATASET, "unit": unit}]
    target.write_text(yaml.safe_dump(settings, sort_keys=False))
