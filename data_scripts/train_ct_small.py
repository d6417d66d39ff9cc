"""Train the bundled prior `ct-small` on the project's phantoms and on CT slices that a user has.

    python -m data_scripts.train_ct_small --data FOLDER --output runs/ct-small --minutes 70

FOLDER holds ct_slices.h5, ct_openkbp.h5 and ct_luad.h5 as described in the model card that this script
writes. The script collects the slices that may be trained on into OUTPUT/images.h5, writes the settings
to OUTPUT/train.yaml, and runs what `ctflow train OUTPUT/train.yaml` runs. Started again, it resumes.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ctflow.phantoms import random_anatomy
from data_scripts.bundled_prior import BundledPrior, ImageCollection, phantoms

PHANTOMS = 480
PROCESSES: int | None = None
"""As many as there are cores."""
WEIGHTS = {"phantoms": 0.3, "cranium": 0.15, "luad": 0.12, "luad_half": 0.25, "openkbp": 0.18}

CARD = """# ct-small

A flow-matching prior for CT slices: a convolutional U-Net of 3.8 million parameters on 2 x 2 pixel blocks,
linear path, velocity prediction. Stored in half precision.

Network value 0 is 0.02/mm (water), -1 is air, 1 is 0.04/mm; values are not clipped. Images of any size, with
pixels of 0.5 to 5 mm; other scales and arbitrary units work as far as structures look alike, with the
scale estimated from the measurement.

## Training data

{sets}

Attenuation in 1/mm is 0.02 (1 + HU / 1000), not below 0. Crops of {crops} pixels, turned by multiples of 90
degrees, mirrored; {rescaled:.0%} of them multiplied by a factor between {low} and {high}.

Attributions: Cranium from InVesalius (Debian package invesalius-examples, GPL-2). Open-KBP slices:
repository ababier/open-kbp (MIT), from The Cancer Imaging Archive; Babier et al., Medical Physics 48, 2021.
TCGA-LUAD: The Cancer Imaging Archive, CC BY 3.0; Albertina et al. 2016, Clark et al. 2013. The phantoms
are ctflow's own.

## Training

`python -m data_scripts.train_ct_small --data FOLDER {options}`: {steps} steps of batch {batch} at 64 x 64
(larger crops in smaller batches) in {took:.1f} minutes on {device}, bfloat16 convolutions, AdamW, learning
rate {rate:g} falling linearly, average of the weights over about {average:.0f} steps.

Velocity error (mean square, averaged weights) on {validation} held-out phantoms and held-out slices at
t = 0.1, 0.3, 0.5, 0.7, 0.9: {losses}.

## Use and limits

For reconstruction research: sparse-view and low-dose CT, as the prior of FLOWER and other flow solvers. It
has seen head, neck and chest coarsely and the abdomen as phantoms only. Nobody has validated it for
diagnosis, and it must not be used for that. A generative prior can invent plausible detail where the
measurement says nothing: compare with a classical reconstruction.

Kept out of training: the GE head of ct_slices.h5, the test split of Open-KBP, the last tenth of the TCGA-LUAD
patients in sorted order (of which {luad_held_out} slices), and all phantom seeds from 900 000 000 on.
"""


def attenuation(hounsfield: NDArray[np.int16]) -> NDArray[np.float32]:
    """Linear attenuation in 1/mm."""
    return np.clip(0.02 * (1 + hounsfield.astype(np.float32) / 1000), 0, None)


def halved(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 2 x 2 pixels."""
    count, height, width = images.shape
    return images.reshape(count, height // 2, 2, width // 2, 2).mean((2, 4))


def phantom(seed: int) -> NDArray[np.float32]:
    """A phantom of attenuation in 1/mm."""
    return random_anatomy(seed).numpy()


def collect(data: Path) -> ImageCollection:
    """Phantoms, heads, necks and chests."""
    sets = phantoms(phantom, PHANTOMS, PROCESSES)
    about = {"phantoms": "random_anatomy of ctflow.phantoms, seeds from 0, 256 x 256"}
    with h5py.File(data / "ct_slices.h5") as file:
        sets["cranium"] = attenuation(file["cranium"][:])
        about["cranium"] = "ct_slices.h5, Cranium: a head with surgical opening, 0.957 mm pixels"
    with h5py.File(data / "ct_luad.h5") as file:
        patients = file["patient"].asstr()[:]
        names = sorted(set(patients))
        held_out = np.isin(patients, names[len(names) - len(names) // 10 :])
        images = attenuation(file["image"][:])
    sets["luad"], sets["luad_half"] = images[~held_out], halved(images[~held_out])
    about["luad"] = (
        f"ct_luad.h5 (TCGA-LUAD), {len(names) - len(names) // 10} of {len(names)} patients: chests"
    )
    about["luad_half"] = "the same, 2 x 2 pixels averaged"
    sets["validation"] = halved(images[held_out])
    with h5py.File(data / "ct_openkbp.h5") as file:
        split = file["split"].asstr()[:]
        sets["openkbp"] = attenuation(file["image"][:][np.isin(split, ["train", "validation"])])
        about["openkbp"] = (
            "ct_openkbp.h5 (Open-KBP), splits train and validation: head, neck, shoulders, coarse"
        )
    return ImageCollection(sets, about, {"luad_held_out": int(held_out.sum())})


CT_SMALL = BundledPrior(
    name="ct-small",
    files="ct_slices.h5, ct_openkbp.h5, ct_luad.h5",
    collect=collect,
    unit="1/mm",
    weights=WEIGHTS,
    validation=("validation", "validation_phantoms"),
    settings={
        "network": {"widths": [64, 96, 128], "layers": 1, "patch": 2, "data_mean": -0.5, "data_std": 0.5},
        "representation": {"scale": 0.02, "offset": 0.02, "unit": "1/mm"},
        "rescale_probability": 0.3,
        "minutes": 70,
    },
    card=CARD,
)


if __name__ == "__main__":
    CT_SMALL.run(__doc__ or "")
