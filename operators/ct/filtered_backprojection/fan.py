"""Weighted backprojection along fans, from pixel to pixel."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from operators.ct.geometry import FanBeam, Float64Array, ImageGrid
from operators.ct.projectors.batches import as_array, groups, lane_count
from operators.ct.projectors.threads import in_threads, spans
from operators.linear import LinearOperator

_ROWS = 16  # that stay in a core's cache while the views pass


class FanBackprojection(LinearOperator):
    """For every pixel the sum over views of what the detector has where it sees it, divided by a distance^2.

    Maps filtered views, shape (*batch, views, bins), to images (*batch, height, width), and is linear between
    neighbouring bins; beyond the detector's ends the views are zero. The distance is that of the pixel from
    the source: for a flat detector perpendicular to it and as a part of the detector's own, for a curved one
    in mm (Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, section 3.4). CPU, float32
    and float64.
    """

    def __init__(self, geometry: FanBeam, grid: ImageGrid) -> None:
        super().__init__(geometry.sinogram_shape, grid.shape, accepts=(torch.float32, torch.float64))
        self.geometry, self.grid = geometry, grid
        self._paths = fan_paths(geometry)

    def _forward(self, x: Tensor) -> Tensor:
        from operators.ct.filtered_backprojection.fan_kernels import gather_rows

        views = x.reshape(math.prod(x.shape[:-2]), *self.domain_shape)
        images = views.new_zeros(views.shape[0], *self.range_shape)
        for part in groups(views.shape[0]):
            lanes = lane_count(part.stop - part.start)
            packed = self._packed(as_array(views[part], "fan backprojection"), lanes)
            pixels = np.zeros(math.prod(self.range_shape) * lanes, packed.dtype)
            arguments = self._arguments()
            height = self.range_shape[0]
            jobs = spans(height, max(2 * torch.get_num_threads(), height // _ROWS))
            in_threads(gather_rows, ((packed, *arguments, *span, pixels, (0,) * lanes) for span in jobs))
            lanes_last = pixels.reshape(*self.range_shape, lanes)
            images[part] = torch.from_numpy(np.moveaxis(lanes_last, -1, 0)[: part.stop - part.start])
        return images.reshape(*x.shape[:-2], *self.range_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        from operators.ct.filtered_backprojection.fan_kernels import scatter_views

        images = y.reshape(math.prod(y.shape[:-2]), *self.range_shape)
        views = images.new_zeros(images.shape[0], *self.domain_shape)
        number, bins = self.domain_shape
        for part in groups(images.shape[0]):
            lanes = lane_count(part.stop - part.start)
            some = as_array(images[part], "fan backprojection")
            pixels = np.zeros((*self.range_shape, lanes), some.dtype)
            pixels[..., : len(some)] = np.moveaxis(some, 0, -1)
            packed = np.zeros(number * (bins + 2) * lanes, some.dtype)
            arguments = self._arguments()
            jobs = spans(number, 2 * torch.get_num_threads())
            in_threads(
                scatter_views,
                ((packed, *arguments, *span, pixels.reshape(-1), (0,) * lanes) for span in jobs),
            )
            seen = packed.reshape(number, bins + 2, lanes)[:, 1:-1, : len(some)]
            views[part] = torch.from_numpy(np.moveaxis(seen, -1, 0))
        return views.reshape(*y.shape[:-2], *self.domain_shape)

    def corner_positions(self) -> Float64Array:
        """Return the bin at which each view sees each corner of the image, (views, 4); inf if it is behind.

        Bins follow one another past the ends of the detector.
        """
        left, right, bottom, top = self.grid.extent
        corners = np.array([[1, x, y] for x in (left, right) for y in (bottom, top)])
        across, along = self._paths[:, 0:3] @ corners.T, self._paths[:, 3:6] @ corners.T
        with np.errstate(divide="ignore", invalid="ignore"):
            position = np.where(along > 0, across / along, np.copysign(np.inf, across))
        if self.geometry.detector.curved:
            position = np.arctan(position)
        return position * self._paths[:, 6:7] + (self.domain_shape[1] - 1) / 2

    def _arguments(self) -> tuple[Float64Array, bool, int, Float64Array, Float64Array]:
        x, y = self.grid.coordinates()
        return self._paths, self.geometry.detector.curved, self.domain_shape[1], x, y

    def _packed(self, views: np.ndarray, lanes: int) -> np.ndarray:
        number, bins = self.domain_shape
        packed = np.zeros((number, bins + 2, lanes), views.dtype)
        packed[:, 1:-1, : len(views)] = np.moveaxis(views, 0, -1)
        return packed.reshape(-1)


def fan_paths(geometry: FanBeam) -> Float64Array:
    """Return for each view where a pixel is across and along its middle ray; see `fan_kernels`."""
    source, middle, step = (geometry.vectors()[:, i : i + 2] for i in (0, 2, 4))
    reach = middle - source
    radius = np.linalg.norm(reach, axis=1)
    width = np.linalg.norm(step, axis=1)
    if geometry.detector.curved:
        across, along = step / width[:, None], reach / radius[:, None]
        bins = radius / width
    else:
        # Of a pixel at d from the source: the bins to the ray through it, and its depth over the detector's.
        area = (step[:, 0] * reach[:, 1] - step[:, 1] * reach[:, 0])[:, None]
        across = np.stack((reach[:, 1], -reach[:, 0]), axis=1) / area
        along = np.stack((-step[:, 1], step[:, 0]), axis=1) / area
        bins = np.ones(len(source))
    columns = []
    for factors in (across, along):
        columns += [-(factors * source).sum(axis=1), factors[:, 0], factors[:, 1]]
    return np.stack((*columns, bins), axis=1)
