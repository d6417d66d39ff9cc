"""How many slices are computed at once."""

from __future__ import annotations

import math
import os

import torch

from ctflow.io.scan import AnyScan
from ctflow.pipeline.job import Job

# More at once are not faster: a CPU's cores are busy with four, a GPU's with sixteen.
_MOST = {"cpu": 4, "cuda": 16}
# Numbers of 4 bytes that a slice needs while it is computed, for each of its measurement and of its image:
# iterates, residuals and directions, and with a prior the layers of its network.
_PER_MEASUREMENT = 10
_PER_PIXEL, _PER_PIXEL_OF_NETWORK = 20, 400
# Of a GPU of another machine, which is not to be seen from here.
_UNSEEN_GPU = 16 * 2**30
# The part of the memory that a block may take.
_SHARE = 0.4


def slices_at_once(scan: AnyScan, job: Job, device: torch.device) -> int:
    """As many slices as the memory of the machine or the device is good for, at least one.

    It follows from all the memory that there is rather than from what is free at the moment, so that a job
    that is run again cuts the same blocks.
    """
    if device.type == "cuda":
        visible = torch.cuda.is_available() and not job.elsewhere
        memory = torch.cuda.get_device_properties(device).total_memory if visible else _UNSEEN_GPU
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fitting = int(_SHARE * memory / slice_bytes(scan, job))
    return max(1, min(_MOST[device.type], fitting))


def slice_bytes(scan: AnyScan, job: Job) -> int:
    """About what one slice needs while it is computed, in bytes."""
    per_pixel = _PER_PIXEL + (_PER_PIXEL_OF_NETWORK if job.prior_name(scan.modality) is not None else 0)
    measured, pixels = (math.prod(shape) for shape in (scan.measurement_shape, scan.image_shape))
    return 4 * (_PER_MEASUREMENT * measured + per_pixel * pixels)
