"""Conditional flow matching: training of velocity networks, resumable to the bit."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ctflow.flows.images import CropSampler, read_images
from ctflow.flows.network import NetworkSettings, VelocityNetwork
from ctflow.flows.path import AffinePath
from ctflow.flows.prior import FlowPrior
from ctflow.flows.store import load_prior, save_prior
from ctflow.flows.training_settings import ImageSet, TrainingSettings, read_settings
from ctflow.flows.warm_start import start_from
from ctflow.representation import Representation

log = logging.getLogger(__name__)

VALIDATION_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


class Training:
    """A training run: what it holds is what a checkpoint holds."""

    def __init__(
        self, settings: TrainingSettings, sampler: CropSampler, validation: Tensor | None = None
    ) -> None:
        self.settings = settings
        self.path = AffinePath.named(**settings.path)
        self.device = torch.device(settings.device)
        self.sampler = _near(sampler, self.device)
        sizes = NetworkSettings(**settings.network)
        with torch.random.fork_rng(devices=[]):
            # The initial weights are drawn from torch's global generator, by the network's own library.
            torch.manual_seed(settings.seed)
            self.network = VelocityNetwork(sizes, self.path, settings.precision).to(self.device)
        if settings.initial is not None:
            _start(self.network, settings.initial)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.generator = torch.Generator().manual_seed(settings.seed)
        # Noise is drawn where it is used: a GPU would wait for that of the CPU.
        on_cpu = self.device.type == "cpu"
        self.noise = self.generator if on_cpu else torch.Generator(self.device).manual_seed(settings.seed)
        self.step, self.seconds = 0, 0.0
        self.validation = validation

    def progress(self) -> float:
        """How much of the run is done, 0 to 1."""
        by_step = self.step / self.settings.steps if self.settings.steps else 0.0
        by_time = self.seconds / (60 * self.settings.minutes) if self.settings.minutes else 0.0
        return min(1.0, max(by_step, by_time))

    def advance(self) -> float:
        """Take one step; the loss."""
        settings = self.settings
        start = time.perf_counter()
        for group in self.optimiser.param_groups:
            warm = min(1.0, (self.step + 1) / settings.warmup)
            group["lr"] = settings.learning_rate * warm * max(0.01, 1 - self.progress())
        size = settings.crops[self.step % len(settings.crops)]
        # Larger crops come in smaller batches, so that every step costs about the same.
        count = max(1, round(settings.batch * (settings.crops[0] / size) ** 2))
        data = self.sampler(count, size, self.generator).to(self.device)
        times = sample_times(count, settings.time, self.generator)
        loss = flow_matching_loss(self.network, self.path, data, times, self.noise)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.gradient_clip)
        self.optimiser.step()
        self.step += 1
        self._update_average()
        self.seconds += time.perf_counter() - start
        return float(loss.detach())

    @torch.no_grad()
    def _update_average(self) -> None:
        # A plain mean at first, so that the initial weights are soon forgotten.
        decay = min(self.settings.ema, self.step / (self.step + 10))
        values = self.network.state_dict()
        torch._foreach_lerp_([self.average[name] for name in values], list(values.values()), 1 - decay)

    def prior(self) -> FlowPrior:
        """The prior with averaged weights, as trained so far."""
        network = VelocityNetwork(self.network.settings, self.path, self.settings.precision)
        network.load_state_dict(self.average)
        return FlowPrior(
            network.eval().requires_grad_(False),
            self.path,
            Representation.from_dict(self.settings.representation),
            multiple=network.settings.multiple,
            name=self.settings.name,
        ).to(self.device)

    @torch.no_grad()
    def validate(self) -> dict[str, float] | None:
        """Loss of the averaged network on the validation crops at fixed times and noise."""
        if self.validation is None:
            return None
        network = self.prior().network
        assert isinstance(network, VelocityNetwork)
        losses = {}
        for t in VALIDATION_TIMES:
            generator = torch.Generator().manual_seed(self.settings.seed)
            times = torch.full((len(self.validation),), t)
            loss = flow_matching_loss(network, self.path, self.validation.to(self.device), times, generator)
            losses[str(t)] = float(loss)
        return losses

    def save(self, file: Path) -> None:
        """Write a checkpoint, atomically."""
        state = {
            "settings": _fingerprint(self.settings),
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "noise": self.noise.get_state(),
            "step": self.step,
            "seconds": self.seconds,
        }
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            torch.save(state, temporary)
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, file: Path) -> None:
        """Go on from a checkpoint of the same run; ValueError where the settings differ."""
        state = _checkpoint(file, self.device)
        expected = _fingerprint(self.settings)
        differing = sorted(key for key in expected if state["settings"].get(key) != expected[key])
        if differing:
            raise ValueError(
                f"{file}: expected a checkpoint of these settings, found other {', '.join(differing)}"
            )
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        if self.noise is not self.generator and state["noise"].shape == self.noise.get_state().shape:
            self.noise.set_state(state["noise"].cpu())
        self.step, self.seconds = state["step"], state["seconds"]


def _checkpoint(file: Path, device: torch.device) -> dict[str, Any]:
    """The tensors and numbers of a checkpoint; ValueError for another file, none of which is executed."""
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file}: expected a checkpoint, found a damaged file: {reason}") from error
    parts = {"settings", "network", "average", "optimiser", "generator", "noise", "step", "seconds"}
    if not isinstance(state, dict) or parts - set(state) or not isinstance(state["settings"], dict):
        raise ValueError(f"{file}: expected a checkpoint, found another file")
    return state


def flow_matching_loss(
    network: torch.nn.Module, path: AffinePath, data: Tensor, times: Tensor, generator: torch.Generator
) -> Tensor:
    """Mean squared error between velocity and target on noise drawn from the generator.

    Lipman et al., Flow matching for generative modeling, arXiv 2210.02747, equation 9.
    """
    noise = torch.randn(data.shape, generator=generator, dtype=data.dtype, device=generator.device)
    noise, times = noise.to(data.device), times.to(data.device)
    velocity = network(path.interpolate(noise, data, times), times)
    return (velocity - path.target_velocity(noise, data, times)).square().mean()


def sample_times(count: int, law: str, generator: torch.Generator) -> Tensor:
    """Training times, shape (count,): uniform on [0, 1], or sigmoid of a standard normal.

    The logit-normal law is that of Esser et al., arXiv 2403.03206, with mean 0 and scale 1.
    """
    if law == "uniform":
        return torch.rand(count, generator=generator)
    return torch.sigmoid(torch.randn(count, generator=generator))


Progress = Callable[[Training, float], bool | None]


def train(settings: TrainingSettings, *, resume: bool = True, progress: Progress | None = None) -> Path:
    """Run or resume a training; the path of the saved prior, without ending.

    Writes into `settings.output`: checkpoint.pt, loss.jsonl, loss.png, and the prior as NAME.safetensors,
    NAME.json and NAME.md. `progress` sees the run and the loss after each step, and stops it by returning
    True. An interrupt (Ctrl-C) writes a checkpoint and is passed on.
    """
    representation = Representation.from_dict(settings.representation)
    sampler, validation = _data(settings, representation)
    run = Training(settings, sampler, validation)
    settings.output.mkdir(parents=True, exist_ok=True)
    checkpoint, curve = settings.output / "checkpoint.pt", settings.output / "loss.jsonl"
    if resume and checkpoint.exists():
        run.load(checkpoint)
        log.info("resumed at step %d after %.0f s", run.step, run.seconds)
    entries = [entry for entry in _read_curve(curve) if entry["step"] <= run.step] if run.step else []
    losses: list[float] = []
    try:
        while run.progress() < 1:
            losses.append(run.advance())
            stop = progress is not None and progress(run, losses[-1])
            if run.step % settings.log_every == 0:
                entries.append({"step": run.step, "seconds": run.seconds, "loss": sum(losses) / len(losses)})
                losses.clear()
            if run.step % settings.checkpoint_every == 0:
                _keep(run, entries, checkpoint, curve)
            if stop:
                break
    finally:
        _keep(run, entries, checkpoint, curve)
    draw_curve(entries, settings.output / "loss.png", settings.name)
    target = settings.output / settings.name
    save_prior(run.prior(), target, card=settings.card or _card(run), half=True)
    return target


def train_from_yaml(file: str | Path, *, resume: bool = True, progress: Progress | None = None) -> Path:
    """`train` with settings from a YAML file, in which relative paths start at the file's folder.

    Raises ValueError in one line for a file that is not YAML, an unknown key (with the nearest known
    one) or a value that does not fit.
    """
    return train(read_settings(file), resume=resume, progress=progress)


def draw_curve(entries: list[dict[str, Any]], file: Path, title: str) -> None:
    """Draw the loss over the steps as a picture; nothing where there are no entries."""
    from matplotlib.figure import Figure

    if not entries:
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([e["step"] for e in entries], [e["loss"] for e in entries], label="training")
    held_out = [e for e in entries if e.get("validation")]
    for t in VALIDATION_TIMES if held_out else ():
        values = [e["validation"][str(t)] for e in held_out]
        axes.plot(
            [e["step"] for e in held_out], values, marker=".", linewidth=0.8, label=f"validation, t = {t}"
        )
    axes.set(xlabel="step", ylabel="velocity error (mean square)", yscale="log", title=title)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=120)


def _data(settings: TrainingSettings, representation: Representation) -> tuple[CropSampler, Tensor | None]:
    empty = float(-representation.offset / representation.scale)

    def crops_of(sets: list[ImageSet], **augmentation: Any) -> CropSampler:
        images = [read_images(s.file, s.dataset, s.unit, representation) for s in sets]
        if settings.phase is None:
            _refuse_magnitudes(sets, images, settings)
        weights = [s.weight for s in sets]
        return CropSampler(images, weights, empty=empty, phase=settings.phase, **augmentation)

    sampler = crops_of(
        settings.images, rescale=settings.rescale, rescale_probability=settings.rescale_probability
    )
    if not settings.validation:
        return sampler, None
    generator = torch.Generator().manual_seed(settings.seed)
    return sampler, crops_of(settings.validation)(16, max(settings.crops), generator)


def _near(sampler: CropSampler, device: torch.device) -> CropSampler:
    """The sampler with its images on a GPU where they take at most a quarter of what is free there."""
    if device.type != "cuda" or sampler.nbytes > torch.cuda.mem_get_info(device)[0] / 4:
        return sampler
    return sampler.to(device)


def _refuse_magnitudes(sets: list[ImageSet], images: list[Tensor], settings: TrainingSettings) -> None:
    for entry, stack in zip(sets, images, strict=True):
        if settings.representation.get("complex") and stack.shape[1] == 1:
            raise ValueError(
                f"{entry.file}: {entry.dataset}: expected complex images, or the setting phase to make them "
                "of magnitudes"
            )


def _start(network: VelocityNetwork, initial: str) -> None:
    other = load_prior(initial).network
    assert isinstance(other, VelocityNetwork)
    missing = start_from(network, other)
    log.info("started from the weights of %s, without %s", initial, ", ".join(missing) or "exception")


def _keep(run: Training, entries: list[dict[str, Any]], checkpoint: Path, curve: Path) -> None:
    if entries and entries[-1]["step"] == run.step and "validation" not in entries[-1]:
        entries[-1]["validation"] = run.validate()
    run.save(checkpoint)
    curve.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def _read_curve(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _fingerprint(settings: TrainingSettings) -> dict[str, Any]:
    """What must agree for a checkpoint to be gone on from; the end of the run and its logs may change."""
    free = {"output", "steps", "minutes", "device", "log_every", "checkpoint_every", "card"}
    content = settings.model_dump(mode="json", exclude=free | {"images", "validation"})
    # A folder may have moved.
    content["initial"] = settings.initial and Path(settings.initial).name
    return content


def _card(run: Training) -> str:
    settings = run.settings
    sets = "\n".join(f"- {s.file.name}, dataset `{s.dataset}`, weight {s.weight:g}" for s in settings.images)
    count = sum(parameter.numel() for parameter in run.network.parameters())
    sizes = ", ".join(f"{key} {value}" for key, value in asdict(run.network.settings).items())
    return (
        f"# {settings.name}\n\nA flow prior of {count / 1e6:.2f} million parameters ({sizes}),\n"
        f"trained by conditional flow matching for {run.step} steps in {run.seconds / 60:.0f} minutes\n"
        f"on {run.device.type}.\n\n"
        f"## Training images\n\n{sets}\n"
    )
