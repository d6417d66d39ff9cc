"""How a bundled prior is trained: images collected once, a run that resumes, a model card."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from ctflow.flows.training import Training, train_from_yaml
from ctflow.flows.training_settings import TrainingSettings, read_settings

VALIDATION_PHANTOMS = 16
FIRST_VALIDATION_SEED = 900_000_000


@dataclass(frozen=True)
class ImageCollection:
    """Images for training and validation.

    Attributes
    ----------
    sets
        Stacks (images, height, width) by name.
    about
        A line on each set that is trained on.
    facts
        What else the model card tells, by the names of its blanks.
    """

    sets: dict[str, NDArray[np.float32]]
    about: dict[str, str]
    facts: dict[str, Any]


@dataclass(frozen=True)
class BundledPrior:
    """How a bundled prior is made.

    Attributes
    ----------
    name
        Of the prior.
    files
        That the folder of data must hold, for the help text.
    collect
        From the folder of data to the images.
    unit
        Of the images.
    weights
        How often each set is drawn from.
    validation
        Names of the sets that are validated on.
    settings
        Of the training, beyond what is the same for all.
    card
        The model card, with blanks: those of `write_card`, and the collection's facts.
    """

    name: str
    files: str
    collect: Callable[[Path], ImageCollection]
    unit: str
    weights: Mapping[str, float]
    validation: tuple[str, ...]
    settings: Mapping[str, Any]
    card: str

    def run(self, description: str) -> None:
        """Collect, train, and write the model card, as the command line says."""
        parser = argparse.ArgumentParser(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--data", type=Path, required=True, help=f"folder of {self.files}")
        parser.add_argument("--output", type=Path, default=Path("runs") / self.name)
        parser.add_argument("--minutes", type=float, help="end after this time, whatever the steps")
        parser.add_argument("--steps", type=int, help="end after so many; what the prior's own run took")
        parser.add_argument("--device", default="cpu")
        arguments = parser.parse_args()
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        output: Path = arguments.output
        output.mkdir(parents=True, exist_ok=True)
        images, about = output / "images.h5", output / "sets.yaml"
        if not (images.exists() and about.exists()):
            collection = self.collect(arguments.data)
            write_images(collection.sets, images, self.unit)
            lines = {n: f"{len(collection.sets[n])} slices: {text}" for n, text in collection.about.items()}
            about.write_text(yaml.safe_dump({"about": lines, "facts": collection.facts}))
        found = yaml.safe_load(about.read_text())
        chosen = {name: getattr(arguments, name) for name in ("minutes", "steps")}
        ends = {name: value for name, value in chosen.items() if value is not None}
        settings = self.training(images, arguments.device) | ends
        (output / "train.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        prior = train_from_yaml(output / "train.yaml", progress=progress())
        self.write_card(prior, found["about"], found["facts"])

    def training(self, images: Path, device: str) -> dict[str, Any]:
        """The settings of the training, as `ctflow train` takes them."""

        def entry(name: str, **more: Any) -> dict[str, Any]:
            return {"file": images.name, "dataset": name, "unit": self.unit, **more}

        return {
            "name": self.name,
            "output": ".",
            "images": [entry(name, weight=weight) for name, weight in self.weights.items()],
            "validation": [entry(name) for name in self.validation],
            "crops": [64, 64, 96, 128],
            "batch": 16,
            "rescale": [0.6, 1.5],
            "device": device,
            "checkpoint_every": 1000,
            **self.settings,
        }

    def write_card(self, prior: Path, about: Mapping[str, str], facts: Mapping[str, Any]) -> None:
        """Write the model card beside the prior from what the run left behind."""
        settings = read_settings(prior.parent / "train.yaml")
        entries = [json.loads(line) for line in (prior.parent / "loss.jsonl").read_text().splitlines()]
        last = [entry for entry in entries if entry.get("validation")][-1]
        low, high = settings.rescale
        card = self.card.format(
            sets="\n".join(f"- {about[name]} (weight {weight:g})" for name, weight in self.weights.items()),
            crops=", ".join(str(size) for size in sorted(set(settings.crops))),
            rescaled=settings.rescale_probability,
            low=low,
            high=high,
            options=_options(settings),
            device=_hardware(settings.device),
            batch=settings.batch,
            steps=entries[-1]["step"],
            took=entries[-1]["seconds"] / 60,
            rate=settings.learning_rate,
            average=1 / (1 - settings.ema),
            validation=VALIDATION_PHANTOMS,
            losses=", ".join(f"{loss:.4f}" for loss in last["validation"].values()),
            **facts,
        )
        prior.with_name(f"{prior.name}.md").write_text(card)


def _options(settings: TrainingSettings) -> str:
    """The words of the command line that end the run where it ended."""
    end = f"--minutes {settings.minutes:g}" if settings.minutes else f"--steps {settings.steps}"
    return end if settings.device == "cpu" else f"--device {settings.device} {end}"


def _hardware(device: str) -> str:
    """What the model card says of where a prior was trained."""
    if torch.device(device).type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return f"{threads} CPU {'core' if threads == 1 else 'cores'}"


def write_images(sets: Mapping[str, NDArray[np.float32]], target: Path, unit: str) -> None:
    """Write image sets into one HDF5 file, whole or not at all."""
    partial = target.with_suffix(".partial")
    with h5py.File(partial, "w") as file:
        for name, images in sets.items():
            file.create_dataset(name, data=images, dtype=np.float16 if images.max() < 100 else np.float32)
            file[name].attrs["units"] = unit
    partial.replace(target)


def phantoms(
    draw: Callable[[int], NDArray[np.float32]], count: int, processes: int | None = None
) -> dict[str, NDArray[np.float32]]:
    """The sets "phantoms" and "validation_phantoms" of images drawn from a seed, by so many processes."""
    held_out = range(FIRST_VALIDATION_SEED, FIRST_VALIDATION_SEED + VALIDATION_PHANTOMS)
    seeds = {"phantoms": range(count), "validation_phantoms": held_out}
    if processes == 1:
        return {name: np.stack([draw(seed) for seed in some]) for name, some in seeds.items()}
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
        return {name: np.stack(list(pool.map(draw, some, chunksize=8))) for name, some in seeds.items()}


def progress() -> Callable[[Training, float], None]:
    """A line in the log after every 200 steps."""
    recent: list[float] = []

    def say(run: Training, loss: float) -> None:
        recent.append(loss)
        if run.step % 200 == 0:
            logging.info("step %d, %.0f s, loss %.4f", run.step, run.seconds, sum(recent) / len(recent))
            recent.clear()

    return say
