"""Training images: HDF5 datasets in physical units, drawn as augmented crops."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ctflow.flows.training_settings import Phase
from ctflow.representation import Representation, brightness
from ctflow.smooth_fields import places, with_smooth_phase

UNITS = ("1/mm", "HU", "arbitrary")
# Bytes that are read unasked; compression makes constant images a thousand times smaller, not more.
_SMALL, _LARGEST_RATIO = 2**26, 4096


class CropSampler:
    """Random crops of weighted image sets, in network units.

    Parameters
    ----------
    sets
        Image stacks (images, channels, height, width), already in network units.
    weights
        How often each set is drawn from, relative to the others.
    empty
        The network's value of an empty image: crops of images smaller than the crop are padded by it.
    rescale
        Lowest and highest factor on the physical value, drawn for `rescale_probability` of the crops,
        so that the prior knows other scales than its own.
    phase
        Stacks of one channel are magnitudes, and each crop of them gets a phase and shading of its own and
        becomes two channels, as smooth as suits the whole image that it is a part of.
    """

    def __init__(
        self,
        sets: Sequence[Tensor],
        weights: Sequence[float],
        *,
        empty: float = -1.0,
        rescale: tuple[float, float] = (1.0, 1.0),
        rescale_probability: float = 0.0,
        phase: Phase | None = None,
    ) -> None:
        if not sets or len(sets) != len(weights):
            raise ValueError(
                f"expected one weight for each set of images, found {len(weights)} and {len(sets)}"
            )
        self.sets, self.weights = list(sets), torch.tensor(weights, dtype=torch.float64)
        self.empty, self.rescale, self.rescale_probability = empty, rescale, rescale_probability
        self.phase = phase

    @property
    def nbytes(self) -> int:
        """What the images take."""
        return sum(images.nbytes for images in self.sets)

    def to(self, device: torch.device | str) -> CropSampler:
        """The same with its images, and hence its crops, on a device."""
        moved = copy(self)
        moved.sets = [images.to(device) for images in self.sets]
        return moved

    def __call__(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """`count` crops, shape (count, channels, size, size); the generator is one of the CPU."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        drawn = torch.rand(count, 7, generator=generator, dtype=torch.float64)
        windows = [
            _Window.drawn(self.sets[i], size, *uniform)
            for i, uniform in zip(which.tolist(), drawn[:, :3].tolist(), strict=True)
        ]
        crops = [window.crop(self.empty) for window in windows]
        if self.phase is not None:
            self._add_phase(crops, windows, generator)
        turned = [
            torch.rot90(crop, int(4 * turn), (-2, -1)).flip((-1,) if mirror < 0.5 else ())
            for crop, (turn, mirror) in zip(crops, drawn[:, 3:5].tolist(), strict=True)
        ]
        low, high = self.rescale
        factors = torch.where(drawn[:, 5] < self.rescale_probability, low + (high - low) * drawn[:, 6], 1.0)
        batch = torch.stack(turned)
        return self.empty + (batch - self.empty) * factors.to(batch)[:, None, None, None]

    def _add_phase(self, crops: list[Tensor], windows: list[_Window], generator: torch.Generator) -> None:
        """Make complex crops of the magnitudes among them, all at once."""
        assert self.phase is not None
        real = [i for i, crop in enumerate(crops) if len(crop) == 1]
        if not real:
            return
        magnitudes = torch.cat([crops[i] for i in real])
        rows = torch.stack([windows[i].rows() for i in real]).to(magnitudes.device)
        columns = torch.stack([windows[i].columns() for i in real]).to(magnitudes.device)
        made = with_smooth_phase(magnitudes, rows, columns, generator, **self.phase.model_dump())
        for i, crop in zip(real, torch.stack((made.real, made.imag), 1), strict=True):
            crops[i] = crop


@dataclass(frozen=True)
class _Window:
    """Where a square crop lies in an image (channels, height, width)."""

    image: Tensor
    size: int
    top: int
    left: int

    @classmethod
    def drawn(cls, images: Tensor, size: int, which: float, down: float, across: float) -> _Window:
        """One of the images, and a place in it, by numbers from 0 to 1."""
        height, width = images.shape[-2:]
        top, left = (int(u * (max(n - size, 0) + 1)) for u, n in ((down, height), (across, width)))
        return cls(images[int(which * len(images))], size, top, left)

    def crop(self, empty: float) -> Tensor:
        """The crop, shape (channels, size, size), float32."""
        part = self.image[:, self.top : self.top + self.size, self.left : self.left + self.size]
        if part.shape[-2:] == (self.size, self.size):
            return part.float()
        padding = (0, self.size - part.shape[-1], 0, self.size - part.shape[-2])
        return torch.nn.functional.pad(part.float(), padding, value=empty)

    def rows(self) -> Tensor:
        """Places of the rows in the whole image; see `ctflow.smooth_fields.places`."""
        return places(self.size, of=max(self.image.shape[-2], self.size), first=self.top)

    def columns(self) -> Tensor:
        """Places of the columns in the whole image."""
        return places(self.size, of=max(self.image.shape[-1], self.size), first=self.left)


def read_images(file: Path, dataset: str, unit: str, representation: Representation) -> Tensor:
    """Images of one HDF5 dataset (images, height, width) as float16 in network units.

    Parameters
    ----------
    unit
        "1/mm"; "HU", for which water is 0.02/mm and air is 0; or "arbitrary".
    representation
        Of complex images, it takes magnitudes too; they stay real. Where it takes its scale from the data,
        each image is brought to the peak by its own brightness, as `Representation.fitted` would.

    Returns
    -------
    Tensor
        Shape (images, channels, height, width): two channels for complex images, one for real ones.

    Raises
    ------
    ValueError
        For a file, dataset, shape, type or unit that is not as expected.
    """
    if unit not in UNITS:
        raise ValueError(f"{file}: {dataset}: unit: expected one of {', '.join(UNITS)}, found {unit!r}")
    values = _values(file, dataset)
    if values.is_complex() and not representation.complex:
        raise ValueError(
            f"{file}: {dataset}: expected real images for this representation, found complex ones"
        )
    if representation.complex and not values.is_complex() and bool((values < 0).any()):
        raise ValueError(f"{file}: {dataset}: expected magnitudes, found values below 0")
    if unit == "HU":
        values = (0.02 * (1 + values / 1000)).clamp_min(0)
    if representation.calibration == "data":
        own = torch.tensor([brightness(image.abs()) for image in values])
        aim = representation.offset + representation.peak * representation.scale
        values = values * (aim / torch.where(own > 0, own, aim))[:, None, None]
    if not values.is_complex():
        representation = replace(representation, complex=False)
    return representation.encode(values).half()


def _values(file: Path, dataset: str) -> Tensor:
    try:
        with h5py.File(file) as opened:
            if dataset not in opened:
                raise ValueError(
                    f"{file}: expected a dataset {dataset!r}, found {', '.join(opened) or 'none'}"
                )
            stored = _own_dataset(file, opened, dataset)
            kind = np.complex64 if stored.dtype.kind == "c" else np.float32
            values = np.asarray(stored, dtype=kind)
    except (OSError, RuntimeError, KeyError, TypeError, MemoryError) as error:
        raise ValueError(f"{file}: expected an HDF5 file of images: {error}") from error
    if not np.isfinite(values).all():
        raise ValueError(f"{file}: {dataset}: expected finite values, found NaN or infinity")
    return torch.from_numpy(values)


def _own_dataset(file: Path, opened: h5py.File, name: str) -> h5py.Dataset:
    """A dataset of images that lies in the file itself, and is as large as it says."""
    found: h5py.Group | h5py.Dataset = opened
    for part in filter(None, name.split("/")):
        if isinstance(found.get(part, getlink=True), h5py.ExternalLink):
            raise ValueError(f"{file}: {name}: expected images in this file, found a link to another")
        found = found[part]
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "iufc":
        raise ValueError(f"{file}: {name}: expected a dataset of numbers, found {found}")
    if found.is_virtual or found.external:
        raise ValueError(f"{file}: {name}: expected images in this file, found data stored in another")
    if found.ndim != 3 or not found.size:
        raise ValueError(f"{file}: {name}: expected shape (images, height, width), found {found.shape}")
    if found.nbytes > max(_SMALL, _LARGEST_RATIO * found.id.get_storage_size()):
        raise ValueError(f"{file}: {name}: expected images, found shape {found.shape} and next to no data")
    return found
