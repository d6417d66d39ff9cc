"""How many slices are computed at once."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ctflow.io.scan import AnyScan
    from ctflow.pipeline.job import Job

# More at once are not faster: a CPU's cores are busy with four, a GPU's with sixteen.
_MOST = {"cpu": 4, "cuda": 16}
# Numbers of 4 bytes that a slice needs while it is computed, for each of its measurement and of its image:
# iterates, residuals and directions, and the layers of a bundled prior's network. Resident memory told them;
# of most solvers they are too many by half.
_PER_MEASUREMENT, _PER_PIXEL, _PER_PIXEL_OF_NETWORK = 13, 10, 200
# With their defaults, those that differentiate through a network keep its layers, some at many times at once.
_PER_PIXEL_OF = {
    "dps": 900,
    "ot-ode": 900,
    "fm-plug": 1700,
    "ms-flow": 2300,
    "ictm": 2500,
    "deep-image-prior": 3500,
    "d-flow": 7500,
}
# Of a GPU of another machine, which is not to be seen from here.
_UNSEEN_GPU = 16 * 2**30
# Where the kernel says what a control group may take, in its second and first version.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# The part of the memory that a block may take.
_SHARE = 0.4


def slices_at_once(scan: AnyScan, job: Job, device: torch.device) -> int:
    """As many slices as the memory of the machine or the device is good for, at least one.

    It follows from all the memory that there is rather than from what is free at the moment, so that a job
    that is run again cuts the same blocks.
    """
    if device.type == "cuda":
        import torch

        visible = torch.cuda.is_available() and not job.elsewhere
        memory = torch.cuda.get_device_properties(device).total_memory if visible else _UNSEEN_GPU
    else:
        memory = machine_memory()
    fitting = int(_SHARE * memory / slice_bytes(scan, job))
    return max(1, min(_MOST[device.type], fitting))


def slice_bytes(scan: AnyScan, job: Job) -> int:
    """About what one slice needs while it is computed, in bytes."""
    usual = 0 if job.prior_name(scan.modality) is None else _PER_PIXEL_OF_NETWORK
    per_pixel = _PER_PIXEL + _PER_PIXEL_OF.get(job.solver, usual)
    measured, pixels = (math.prod(shape) for shape in (scan.measurement_shape, scan.image_shape))
    return 4 * (_PER_MEASUREMENT * measured + per_pixel * pixels)


def machine_memory() -> int:
    """The memory of this machine in bytes, or of the part of it that a queue or a container gives away."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _LIMITS:
        try:
            memory = min(memory, int(file.read_text()))
        except (OSError, ValueError):
            # No control group, or "max".
            continue
    return memory
