"""Priors on disk: safetensors weights, JSON settings and a model card; and the bundled ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from ctflow.flows.latent import latent_prior_files, load_latent_prior
from ctflow.flows.network import NetworkSettings, VelocityNetwork
from ctflow.flows.path import AffinePath
from ctflow.flows.prior import FlowPrior
from ctflow.place import file_of, found_at, is_place
from ctflow.representation import Representation

FORMAT = "ctflow-prior"
VERSION = 1
_MOST_BLOCKS = 256


def save_prior(prior: FlowPrior, path: str | Path, *, card: str = "", half: bool = False) -> Path:
    """Write a prior with a `VelocityNetwork` as PATH.safetensors, PATH.json and, with a card, PATH.md.

    Parameters
    ----------
    prior
        Its network must be a `VelocityNetwork`.
    path
        Without an ending; the last part becomes the prior's name.
    card
        The model card, in Markdown: data, licences, training, intended use and limits.
    half
        Store the weights as float16; they are loaded as float32.

    Returns
    -------
    Path
        The weights' file.
    """
    from safetensors.torch import save

    network = prior.network
    if not isinstance(network, VelocityNetwork):
        raise ValueError(f"save_prior: expected a VelocityNetwork, found {type(network).__name__}")
    path = Path(path)
    weights = {
        name: tensor.detach().cpu().to(torch.float16 if half else tensor.dtype).contiguous()
        for name, tensor in network.unet.state_dict().items()
    }
    settings = {
        "format": FORMAT,
        "version": VERSION,
        "name": path.name,
        "network": network.settings.to_dict(),
        "path": prior.path.to_dict(),
        "representation": prior.representation.to_dict(),
        "predicts": prior.predicts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    weights_file = path.parent / f"{path.name}.safetensors"
    _write(weights_file, save(weights))
    _write(path.parent / f"{path.name}.json", (json.dumps(settings, indent=2) + "\n").encode())
    if card:
        _write(path.parent / f"{path.name}.md", card.encode())
    return weights_file


def load_prior(name: str | Path, *, precision: str = "float32") -> FlowPrior:
    """The bundled prior of that name, or the one saved at that path (with or without an ending).

    Parameters
    ----------
    name
        Such as "ct-small", a path as given to `save_prior`, or the folder of a diffusers pipeline, which
        becomes a latent prior; see `load_latent_prior`. Or the place of a function of your own that takes
        nothing and gives a `FlowPrior`, such as "my_priors:lungs".
    precision
        "bfloat16" runs the network's convolutions in that precision; not those of your own.

    Raises
    ------
    ValueError
        For an unknown name, with the nearest known one, or for files that are not a prior's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if is_place(name):
        return _own_prior(str(name))
    if (Path(name) / "model_index.json").is_file():
        return load_latent_prior(name, precision=precision)
    path = _find(name)
    settings_file = path.parent / f"{path.name}.json"
    settings = _settings(settings_file)
    values: dict[str, Callable[[Any], Any]] = {
        "network": lambda value: NetworkSettings(**value),
        "path": lambda value: AffinePath.named(**value),
        "representation": Representation.from_dict,
    }
    parts = {}
    for field, make in values.items():
        try:
            parts[field] = make(settings[field])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{settings_file}: {field}: expected a prior's settings: {error}") from error
    weights_file = path.parent / f"{path.name}.safetensors"
    try:
        weights = load_file(weights_file)
        _check_size(weights_file, weights, parts["network"], parts["path"])
        network = VelocityNetwork(parts["network"], parts["path"], precision)
        network.unet.load_state_dict({key: value.float() for key, value in weights.items()})
    except (OSError, SafetensorError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{weights_file}: expected this network's weights: {reason}") from error
    prior = FlowPrior(
        network,
        parts["path"],
        parts["representation"],
        predicts=settings.get("predicts", "velocity"),
        multiple=network.settings.multiple,
        name=settings.get("name", path.name),
    )
    return prior.eval().requires_grad_(False)


def _own_prior(place: str) -> FlowPrior:
    made = found_at(place)
    prior = made() if callable(made) else made
    if not isinstance(prior, FlowPrior):
        what = "a function that gives a FlowPrior"
        raise ValueError(f"{place}: expected {what} in {file_of(place)}, found {made!r}")
    prior.name = prior.name or place
    return prior


def prior_files(name: str | Path) -> tuple[Path, ...]:
    """The files that make a prior, such as settings and weights; ValueError as for `load_prior`."""
    if (Path(name) / "model_index.json").is_file():
        return latent_prior_files(name)
    path = _find(name)
    return path.parent / f"{path.name}.json", path.parent / f"{path.name}.safetensors"


def _check_size(
    file: Path, weights: dict[str, torch.Tensor], settings: NetworkSettings, path: AffinePath
) -> None:
    """Refuse settings of another network than the weights', before memory is asked for it."""
    found = sum(tensor.numel() for tensor in weights.values())
    # A network without memory takes time, too.
    if len(settings.widths) * settings.layers <= _MOST_BLOCKS:
        with torch.device("meta"):
            sketch = VelocityNetwork(settings, path).unet.state_dict()
        if sum(tensor.numel() for tensor in sketch.values()) == found:
            return
    raise ValueError(f"{file}: expected this network's weights, found {found} numbers for {settings}")


def bundled_priors() -> list[str]:
    """Names of the priors that come with ctflow."""
    return sorted(file.stem for file in _bundle().glob("*.safetensors"))


def _bundle() -> Path:
    return Path(str(resources.files("ctflow.flows"))) / "weights"


def _find(name: str | Path) -> Path:
    """The path without an ending at which the prior's files lie."""
    from difflib import get_close_matches

    text = str(name)
    for ending in (".safetensors", ".json", ".md"):
        text = text.removesuffix(ending)
    if text in bundled_priors():
        return _bundle() / text
    path = Path(text)
    if (path.parent / f"{path.name}.json").is_file():
        return path
    if os.sep in text or path.is_absolute():
        raise ValueError(f"no prior at {text}: expected {path.name}.json and {path.name}.safetensors there")
    known = bundled_priors()
    close = get_close_matches(text, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}, or a path"
    raise ValueError(f"no prior {text!r}; {hint}")


def _settings(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: expected a prior's settings in JSON: {error}") from error
    found = (settings.get("format"), settings.get("version")) if isinstance(settings, dict) else settings
    if found != (FORMAT, VERSION):
        raise ValueError(f"{file}: format: expected {FORMAT} version {VERSION}, found {found}")
    return dict(settings)


def _write(file: Path, content: bytes) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
