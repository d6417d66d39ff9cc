"""How close the images of a target are, all slices as one volume, to the truth that its scan knows."""

from __future__ import annotations

import math
from dataclasses import asdict

import torch
from torch import Tensor

from ctflow.io.parts import part_file, read_status
from ctflow.io.results import read_images
from ctflow.pipeline.targets import Target
from ctflow.volume_metrics import volume_quality

_MOST_PIXELS = 2**26  # that are held at once; of larger volumes the slices are measured alone


def volume_attributes(target: Target, fingerprint: str) -> dict[str, float | None]:
    """What `ctflow.volume_metrics` says of an MR target whose parts are all there; nothing without a truth.

    Slices that failed do not count.
    """
    scan = target.scan
    if scan.modality != "MR" or len(target.slices) * math.prod(scan.image_shape) > _MOST_PIXELS:
        return {}
    images: list[Tensor] = []
    truth: list[Tensor] = []
    for block in target.blocks:
        status = read_status(target.folder, block, fingerprint) or ()
        found = read_images(part_file(target.folder, block))
        for row, line in enumerate(status):
            if found is None or line != "done":
                continue
            true = scan.truth(block[row])
            if true is None or true.shape != found[row].shape:
                return {}
            images.append(found[row])
            truth.append(true)
    if not images or not bool((torch.stack(truth).abs().amax() > 0).all()):
        return {}
    return asdict(volume_quality(torch.stack(images), torch.stack(truth)))
