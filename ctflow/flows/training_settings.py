"""Settings of a training run, from YAML or Python, each checked."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ctflow.flows.network import NetworkSettings
from ctflow.flows.path import AffinePath
from ctflow.representation import Representation


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageSet(_Settings):
    """One HDF5 dataset of images (images, height, width)."""

    file: Path
    dataset: str
    unit: Literal["1/mm", "HU", "arbitrary"] = "1/mm"
    weight: float = Field(default=1.0, gt=0)


class Phase(_Settings):
    """What makes complex images of magnitudes; see `ctflow.smooth_fields.with_smooth_phase`."""

    order: int = Field(default=4, ge=1)
    radians: float = Field(default=1.5, ge=0)
    shading: float = Field(default=0.3, ge=0)


class TrainingSettings(_Settings):
    """Everything that a training run depends on.

    Training ends after `steps` steps or `minutes` minutes, whichever comes first; the learning rate
    falls linearly to a hundredth over the same span. With `steps` alone, a run that was interrupted and
    resumed equals an uninterrupted one, bit for bit on a CPU.

    With a complex representation the network has two channels; complex images are used as they are, and
    magnitudes get a random `phase`. `initial` names a prior, bundled or by path, whose weights the network
    starts from as far as they fit.
    """

    name: str
    output: Path
    images: list[ImageSet] = Field(min_length=1)
    validation: list[ImageSet] = []
    phase: Phase | None = None
    network: dict[str, Any] = {}
    initial: str | None = None
    path: dict[str, Any] = {"name": "linear"}
    representation: dict[str, Any] = {"scale": 0.02, "offset": 0.02}
    steps: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    batch: int = Field(default=16, ge=1)
    crops: list[int] = Field(default=[64], min_length=1)
    time: Literal["uniform", "logit-normal"] = "uniform"
    learning_rate: float = Field(default=4e-4, gt=0)
    warmup: int = Field(default=200, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1)
    rescale: tuple[float, float] = (1.0, 1.0)
    rescale_probability: float = Field(default=0.0, ge=0, le=1)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    device: str = "cpu"
    seed: int = 0
    log_every: int = Field(default=100, ge=1)
    checkpoint_every: int = Field(default=1000, ge=1)
    card: str = ""

    def model_post_init(self, context: Any) -> None:
        """Refuse a run without an end."""
        if self.steps is None and self.minutes is None:
            raise ValueError("expected steps or minutes, found neither")
        expected = 2 if self.representation.get("complex") else 1
        if self.network.get("channels", 1) != expected:
            raise ValueError(
                f"network: channels: expected {expected} for a {'complex' if expected == 2 else 'real'} "
                f"representation, found {self.network.get('channels', 1)}"
            )
        if self.phase is not None and expected == 1:
            raise ValueError("phase: expected none for a real representation")


def read_settings(file: str | Path) -> TrainingSettings:
    """The settings in a YAML file."""
    import yaml

    file = Path(file)
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file}: expected a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected keys and values, found {type(content).__name__}")
    try:
        settings = TrainingSettings(**content)
        NetworkSettings(**settings.network)
        AffinePath.named(**settings.path)
        Representation.from_dict(settings.representation)
    except ValidationError as error:
        raise ValueError(f"{file}: {_first_problem(error)}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from error
    folder = file.parent

    def located(sets: list[ImageSet]) -> list[ImageSet]:
        return [entry.model_copy(update={"file": folder / entry.file}) for entry in sets]

    return settings.model_copy(
        update={
            "images": located(settings.images),
            "validation": located(settings.validation),
            "output": folder / settings.output,
            "initial": _beside(folder, settings.initial),
        }
    )


def _beside(folder: Path, prior: str | None) -> str | None:
    """A prior's path from the settings' folder, where there is one; else a name as it is."""
    if prior is None or not (folder / prior).with_name(f"{Path(prior).name}.json").is_file():
        return prior
    return str(folder / prior)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        nested = Phase if problem["loc"][0] == "phase" else ImageSet
        known = (TrainingSettings if len(problem["loc"]) == 1 else nested).model_fields
        close = get_close_matches(str(problem["loc"][-1]), list(known), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
        return f"no setting {place!r}; {hint}"
    found = "" if problem["type"] == "missing" else f", found {problem['input']!r}"
    return f"{place or 'settings'}: {problem['msg'].removeprefix('Value error, ')}{found}"
