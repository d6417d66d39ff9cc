"""Train the bundled prior `ct-small` on the project's phantoms and on CT slices that a user has.

    python data_scripts/train_ct_small.py --data FOLDER --output runs/ct-small --minutes 70

FOLDER holds ct_slices.h5, ct_openkbp.h5 and ct_luad.h5 as described in the model card that this script
writes. The script collects the slices that may be trained on into OUTPUT/images.h5, writes the settings
to OUTPUT/train.yaml, and runs what `ctflow train OUTPUT/train.yaml` runs. Started again, it resumes.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from ctflow.flows.training import Training, train_from_yaml
from ctflow.phantoms import random_anatomy

PHANTOMS = 480
VALIDATION_PHANTOMS = 16
FIRST_VALIDATION_SEED = 900_000_000
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

`python data_scripts/train_ct_small.py --data FOLDER --minutes {minutes:g}`: {steps} steps of batch 16 at
64 x 64 (larger crops in smaller batches) in {took:.0f} minutes on two CPU cores that other work shared,
bfloat16 convolutions, AdamW, learning rate {rate:g} falling linearly, average of the weights over about
{average:.0f} steps.

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


def collect(data: Path, target: Path) -> dict[str, str]:
    """Write the training and validation images to `target`; a line about each set."""
    sets: dict[str, NDArray[np.float32]] = {}
    about: dict[str, str] = {}
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
    sets["phantoms"] = np.stack([random_anatomy(seed).numpy() for seed in range(PHANTOMS)])
    about["phantoms"] = "random_anatomy of ctflow.phantoms, seeds from 0, 256 x 256"
    seeds = range(FIRST_VALIDATION_SEED, FIRST_VALIDATION_SEED + VALIDATION_PHANTOMS)
    sets["validation_phantoms"] = np.stack([random_anatomy(seed).numpy() for seed in seeds])
    partial = target.with_suffix(".partial")
    with h5py.File(partial, "w") as file:
        for name, images in sets.items():
            file.create_dataset(name, data=images, dtype=np.float16 if images.max() < 1 else np.float32)
            file[name].attrs["units"] = "1/mm"
        file.attrs["luad_held_out"] = int(held_out.sum())
    partial.replace(target)
    return {name: f"{len(sets[name])} slices: {text}" for name, text in about.items()}


def main() -> None:
    """Collect, train, and write the model card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of ct_slices.h5, ct_openkbp.h5, ct_luad.h5"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/ct-small"))
    parser.add_argument("--minutes", type=float, default=70.0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    images = output / "images.h5"
    about_file = output / "sets.yaml"
    if not (images.exists() and about_file.exists()):
        about_file.write_text(yaml.safe_dump(collect(arguments.data, images)))
    about = yaml.safe_load(about_file.read_text())
    settings = {
        "name": "ct-small",
        "output": ".",
        "images": [{"file": images.name, "dataset": name, "weight": WEIGHTS[name]} for name in WEIGHTS],
        "validation": [
            {"file": images.name, "dataset": name} for name in ("validation", "validation_phantoms")
        ],
        "network": {"widths": [64, 96, 128], "layers": 1, "patch": 2, "data_mean": -0.5, "data_std": 0.5},
        "representation": {"scale": 0.02, "offset": 0.02, "unit": "1/mm"},
        "minutes": arguments.minutes,
        "crops": [64, 64, 96, 128],
        "batch": 16,
        "rescale": [0.6, 1.5],
        "rescale_probability": 0.3,
        "device": arguments.device,
        "checkpoint_every": 1000,
    }
    (output / "train.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    recent: list[float] = []

    def progress(run: Training, loss: float) -> None:
        recent.append(loss)
        if run.step % 200 == 0:
            logging.info("step %d, %.0f s, loss %.4f", run.step, run.seconds, sum(recent) / len(recent))
            recent.clear()

    prior = train_from_yaml(output / "train.yaml", progress=progress)
    write_card(prior, about, images)


def write_card(prior: Path, about: dict[str, str], images: Path) -> None:
    """Write the model card beside the prior from what the run left behind."""
    import json

    from ctflow.flows.training_settings import read_settings

    settings = read_settings(prior.parent / "train.yaml")
    entries = [json.loads(line) for line in (prior.parent / "loss.jsonl").read_text().splitlines()]
    last = [entry for entry in entries if entry.get("validation")][-1]
    with h5py.File(images) as file:
        luad_held_out = int(file.attrs["luad_held_out"])
    low, high = settings.rescale
    card = CARD.format(
        sets="\n".join(f"- {about[name]} (weight {weight:g})" for name, weight in WEIGHTS.items()),
        crops=", ".join(str(size) for size in sorted(set(settings.crops))),
        rescaled=settings.rescale_probability,
        low=low,
        high=high,
        minutes=settings.minutes,
        steps=entries[-1]["step"],
        took=entries[-1]["seconds"] / 60,
        rate=settings.learning_rate,
        average=1 / (1 - settings.ema),
        validation=VALIDATION_PHANTOMS,
        losses=", ".join(f"{loss:.4f}" for loss in last["validation"].values()),
        luad_held_out=luad_held_out,
    )
    prior.with_name(f"{prior.name}.md").write_text(card)


if __name__ == "__main__":
    main()
