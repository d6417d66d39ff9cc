"""Train the bundled prior `mr-small` on the project's phantoms and on MR slices that a user has.

    python -m data_scripts.train_mr_small --data FOLDER --output runs/mr-small --device cuda

On a CPU the settings' steps would take days: end sooner with --minutes.

FOLDER holds mr_slices.h5 as described in the model card that this script writes. The script collects the
slices that may be trained on into OUTPUT/images.h5, writes the settings to OUTPUT/train.yaml, and runs
what `ctflow train OUTPUT/train.yaml` runs, from the weights of ct-small on. Started again, it resumes.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from ctflow.mr_phantoms import random_mr_anatomy
from ctflow.representation import brightness
from data_scripts.bundled_prior import BundledPrior, ImageCollection, phantoms

VOLUMES = {
    "studyforrest_t1": (0.15, "T1 of one defaced subject, 0.67 x 0.70 mm pixels"),
    "colin27_t1": (0.16, "T1 average of one subject, 1 mm"),
    "mni2009_t1": (0.10, "T1 template, brain only, 1 mm"),
    "head_t2": (0.18, "T2 of one head, 1 mm"),
    "stroke_t1": (0.08, "T1 of one stroke patient, brain only, 1 mm"),
    "stroke_flair": (0.08, "FLAIR of the same patient, brain only, 1 mm"),
}
"""How often each is drawn from, and what it is."""
ANISOTROPIC = {"studyforrest_t1"}
"""Other planes than the axial one come of cubic voxels only."""
PLANES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
PLANE_SHARES = {"axial": 0.5, "coronal": 0.25, "sagittal": 0.25}
PHANTOMS = 3000
PROCESSES: int | None = None
"""As many as there are cores."""
FAINT = 0.25
"""Slices that are darker than this part of their volume's brightest have hardly any anatomy."""

CARD = """# mr-small

A flow-matching prior for complex MR images: a convolutional U-Net of 3.8 million parameters on 2 x 2
pixel blocks, two channels (real and imaginary part), linear path, velocity prediction. Stored in half
precision.

Network value 0 is no signal; the brightest structures of an image have magnitude 1. The scale is
estimated from each measurement. Images of any size, of one receiver or combined from coils by their
sensitivities, with smooth phase.

## Training data

{sets}

Each slice is scaled so that the 99.5th percentile of its 4 x 4 block means is 1. Crops of {crops}
pixels, turned by multiples of 90 degrees, mirrored; {rescaled:.0%} of them multiplied by a factor
between {low} and {high}.

The slices are magnitudes, and so is what is drawn of the phantoms: each crop gets a random smooth phase
(cosines of at most 4 half waves over the image, standard deviation up to 1.5 rad, with a random
constant) and a random smooth shading. **An inverse crime in phase**: the prior knows no phase but such,
and results on data simulated in the same way flatter it. Phase that jumps (near air, in vessels, where
fat and water differ, from a coil map's errors) it has not seen.

Attributions: studyforrest (Hanke et al. 2014, PDDL) from datalad/example-dicom-structural. Colin27 from
the Debian package mricron-data (BSD-3-Clause). ICBM 152 template 2009 from niivue/niivue (BSD-2-Clause;
copyright 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute,
McGill University). T2 head from neurolabusc/Clinical (BSD-2-Clause). Stroke patient from
neurolabusc/VolumeRenderingData (MIT). The phantoms are ctflow's own.

## Training

`python -m data_scripts.train_mr_small --data FOLDER {options}`: {steps} steps of batch
{batch} at 64 x 64 (larger crops in smaller batches) in {took:.1f} minutes on {device}, bfloat16
convolutions, AdamW, learning rate {rate:g} falling linearly, average of the weights over about
{average:.0f} steps; started from the weights of ct-small.

Velocity error (mean square, averaged weights) on {validation} crops of held-out phantoms and the
held-out subject at t = 0.1, 0.3, 0.5, 0.7, 0.9: {losses}.

## Use and limits

For reconstruction research: undersampled MR, one coil or several, as the prior of FLOWER and other flow
solvers. It has seen half a dozen heads, mostly T1; chest and abdomen as phantoms only; no knee. Nobody
has validated it for diagnosis, and it must not be used for that. A generative prior can invent plausible
detail where the measurement says nothing: compare with a classical reconstruction.

Kept out of training: the subject `seg3d_t1` of mr_slices.h5, and all phantom seeds from 900 000 000 on.
"""


def slices(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """The slices along the first axis that show something, with the volume's brightness at 1."""
    bright = np.array([brightness(torch.from_numpy(image)) for image in volume])
    return np.ascontiguousarray(volume[bright > FAINT * bright.max()] / bright.max())


def phantom(seed: int) -> NDArray[np.float32]:
    """The magnitude of a phantom."""
    return random_mr_anatomy(seed).abs().numpy()


def collect(data: Path) -> ImageCollection:
    """Phantoms, and the slices of every plane."""
    sets = phantoms(phantom, PHANTOMS, PROCESSES)
    about = {"phantoms": "magnitudes of random_mr_anatomy of ctflow.mr_phantoms, seeds from 0, 256 x 256"}
    with h5py.File(data / "mr_slices.h5") as file:
        for name, (_, text) in VOLUMES.items():
            volume = file[name][:].astype(np.float32)
            for plane in planes(name):
                key = f"{name}_{plane}"
                sets[key] = slices(np.ascontiguousarray(volume.transpose(PLANES[plane])))
                about[key] = f"mr_slices.h5, {name}, {plane}: {text}"
        sets["validation"] = slices(file["seg3d_t1"][:].astype(np.float32))
    return ImageCollection(sets, about, {})


def planes(volume: str) -> list[str]:
    """Planes in which a volume is sliced."""
    return ["axial"] if volume in ANISOTROPIC else list(PLANES)


def weights() -> dict[str, float]:
    """How often each set is drawn from."""
    found = {"phantoms": 0.25}
    for name, (weight, _) in VOLUMES.items():
        total = sum(PLANE_SHARES[plane] for plane in planes(name))
        found |= {f"{name}_{plane}": weight * PLANE_SHARES[plane] / total for plane in planes(name)}
    return found


MR_SMALL = BundledPrior(
    name="mr-small",
    files="mr_slices.h5",
    collect=collect,
    unit="arbitrary",
    weights=weights(),
    validation=("validation", "validation_phantoms"),
    settings={
        "network": {
            "channels": 2,
            "widths": [64, 96, 128],
            "layers": 1,
            "patch": 2,
            "data_mean": 0.0,
            "data_std": 0.35,
        },
        "representation": {"complex": True, "calibration": "data", "unit": "arbitrary"},
        "phase": {"order": 4, "radians": 1.5, "shading": 0.3},
        "initial": "ct-small",
        "rescale_probability": 0.5,
        "batch": 128,
        "learning_rate": 8e-4,
        "warmup": 500,
        "ema": 0.9995,
        "steps": 12000,
    },
    card=CARD,
)


if __name__ == "__main__":
    MR_SMALL.run(__doc__ or "")
