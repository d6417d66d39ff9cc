"""Latent priors: transformer and autoencoder of a diffusers pipeline, as of Stable Diffusion 3 or FLUX."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctflow.flows.path import AffinePath
from ctflow.flows.prior import FlowPrior
from ctflow.latent_representation import LatentRepresentation
from ctflow.representation import Representation

# Numbers of one channel of the latents that go through a transformer at once where no derivative is taken.
_AT_ONCE = 2**16
_TIMES = 1000


@dataclass(frozen=True)
class Text:
    """What text encoders make of a prompt: tokens (count, length, width) and a whole (count, width)."""

    tokens: Tensor
    whole: Tensor


def load_latent_prior(
    folder: str | Path,
    *,
    prompt: str | None = None,
    guidance: float = 1.0,
    representation: Representation | None = None,
    precision: str = "float32",
) -> FlowPrior:
    """The prior of a pipeline that diffusers saved: rectified flow on the latents of an autoencoder.

    Nothing is downloaded. The folder has `model_index.json` and the folders `vae`, `transformer` and
    `scheduler`; `transformer` is an `SD3Transformer2DModel` or a `FluxTransformer2DModel`.

    Parameters
    ----------
    folder
        Such as `huggingface-cli download stabilityai/stable-diffusion-3-medium-diffusers` makes.
    prompt
        Encoded once by the pipeline's text encoders, which need the package `transformers`. None is zeros in
        place of text, which the training of these models has for dropped text, and needs no encoders.
    guidance
        w of classifier-free guidance, v_null + w (v_text - v_null), where 1 is none and takes one evaluation
        instead of two; v_null is that of zeros. FLUX models that were distilled with guidance take it as an
        input instead.
    representation
        Between images and the autoencoder's values; see `LatentRepresentation.pixels`.
    precision
        Of the transformer, "float32" or "bfloat16". The autoencoder runs in float32.

    Raises
    ------
    ValueError
        Where the folder does not hold such a pipeline.
    """
    folder = Path(folder)
    index = _index(folder)
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision: expected float32 or bfloat16, found {precision!r}")
    import diffusers

    kind = str((index.get("transformer") or [None, None])[1])
    velocities: dict[str, type[_Velocity]] = {
        "SD3Transformer2DModel": StableDiffusionVelocity,
        "FluxTransformer2DModel": FluxVelocity,
    }
    if kind not in velocities:
        raise ValueError(f"{folder}: transformer: expected one of {', '.join(velocities)}, found {kind}")
    scheduler = str((index.get("scheduler") or [None, None])[1])
    if not scheduler.startswith("FlowMatch"):
        raise ValueError(f"{folder}: scheduler: expected one of flow matching, found {scheduler}")
    dtype = getattr(torch, precision)
    autoencoder = _part(diffusers.AutoencoderKL, folder, "vae", torch.float32)
    transformer = _part(getattr(diffusers, kind), folder, "transformer", dtype)
    text = _zeros(transformer) if prompt is None else _encoded(folder, index, prompt, dtype)
    network = velocities[kind](transformer, text, guidance)
    # Of every level of the autoencoder but the last the picture is halved.
    shrinks = 2 ** (len(autoencoder.config.block_out_channels) - 1)
    prior = FlowPrior(
        network,
        AffinePath.linear(),
        LatentRepresentation(autoencoder, shrinks, network.patch, representation),
        pixels_at_once=_AT_ONCE,
        name=folder.resolve().name,
    )
    # So that it goes to another device with the network.
    prior.autoencoder = autoencoder
    return prior.eval().requires_grad_(False)


def latent_prior_files(folder: str | Path) -> tuple[Path, ...]:
    """The files that `load_latent_prior` reads without a prompt."""
    folder = Path(folder)
    parts = (sorted((folder / name).iterdir()) for name in ("scheduler", "transformer", "vae"))
    return (folder / "model_index.json", *(file for part in parts for file in part if file.is_file()))


class _Velocity(torch.nn.Module):
    """(x, t) to velocity, for latents x of shape (batch, channels, height, width) and t of shape (batch,)."""

    tokens: Tensor
    whole: Tensor

    def __init__(self, transformer: Any, text: Text, guidance: float) -> None:
        super().__init__()
        self.transformer, self.guidance = transformer, guidance
        self.register_buffer("tokens", text.tokens)
        self.register_buffer("whole", text.whole)

    @property
    def patch(self) -> int:
        """Height and width of a latent are multiples of this."""
        return int(self.transformer.config.patch_size)

    def predicted(self, x: Tensor, noise_level: Tensor, tokens: Tensor, whole: Tensor) -> Tensor:
        """E[noise - data | x], which is what these transformers learn."""
        raise TypeError(f"{type(self).__name__} does not define predicted")

    def conditional(self, x: Tensor, noise_level: Tensor, *, with_text: bool) -> Tensor:
        """`predicted` with the text, or with zeros in its place."""
        tokens, whole = (buffer.expand(len(x), *buffer.shape[1:]) for buffer in (self.tokens, self.whole))
        if not with_text:
            tokens, whole = torch.zeros_like(tokens), torch.zeros_like(whole)
        return self.predicted(x, noise_level, tokens, whole)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """E[data - noise | x]: the transformer's time runs the other way, from data to noise."""
        dtype = next(self.transformer.parameters()).dtype
        moved, level = x.to(dtype), (1 - t).to(dtype)
        prediction = self.conditional(moved, level, with_text=True)
        if self.guidance != 1 and not self.guides_itself:
            null = self.conditional(moved, level, with_text=False)
            prediction = null + self.guidance * (prediction - null)
        return -prediction.to(x.dtype)

    @property
    def guides_itself(self) -> bool:
        """Whether guidance is an input of the transformer."""
        return bool(getattr(self.transformer.config, "guidance_embeds", False))


class StableDiffusionVelocity(_Velocity):
    """The velocity of an `SD3Transformer2DModel` (Esser et al., arXiv 2403.03206)."""

    def predicted(self, x: Tensor, noise_level: Tensor, tokens: Tensor, whole: Tensor) -> Tensor:
        """E[noise - data | x]."""
        answer: Tensor = self.transformer(
            hidden_states=x,
            timestep=_TIMES * noise_level,
            encoder_hidden_states=tokens,
            pooled_projections=whole,
            return_dict=False,
        )[0]
        return answer


class FluxVelocity(_Velocity):
    """The velocity of a `FluxTransformer2DModel`, which takes 2 x 2 blocks of the latent as its tokens."""

    @property
    def patch(self) -> int:
        """Two: the transformer's own is that of tokens."""
        return 2

    def predicted(self, x: Tensor, noise_level: Tensor, tokens: Tensor, whole: Tensor) -> Tensor:
        """E[noise - data | x]."""
        count, _, height, width = x.shape
        # A place is (0, row, column); words have none.
        rows = torch.arange(height // 2, device=x.device, dtype=x.dtype)
        columns = torch.arange(width // 2, device=x.device, dtype=x.dtype)
        places = torch.cartesian_prod(rows.new_zeros(1), rows, columns)
        strength = None
        if self.guides_itself:
            strength = torch.full((count,), self.guidance, device=x.device, dtype=torch.float32)
        folded = torch.nn.functional.pixel_unshuffle(x, 2).flatten(2).mT
        answer: Tensor = self.transformer(
            hidden_states=folded,
            timestep=noise_level,
            guidance=strength,
            encoder_hidden_states=tokens,
            pooled_projections=whole,
            img_ids=places,
            txt_ids=x.new_zeros(tokens.shape[1], 3),
            return_dict=False,
        )[0]
        unfolded = answer.mT.unflatten(2, (height // 2, width // 2))
        return torch.nn.functional.pixel_shuffle(unfolded, 2)


def _index(folder: Path) -> dict[str, Any]:
    file = folder / "model_index.json"
    try:
        index = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: expected the index of a diffusers pipeline: {error}") from error
    if not isinstance(index, dict):
        raise ValueError(f"{file}: expected the index of a diffusers pipeline, found {type(index).__name__}")
    return index


def _part(kind: Any, folder: Path, name: str, dtype: torch.dtype) -> Any:
    # diffusers would warn for every part that it cannot do without.
    frugal = find_spec("accelerate") is not None
    try:
        return kind.from_pretrained(
            folder / name, torch_dtype=dtype, local_files_only=True, low_cpu_mem_usage=frugal
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{folder / name}: expected a {kind.__name__}: {reason}") from error


def _zeros(transformer: Any) -> Text:
    config = transformer.config
    parameter = next(transformer.parameters())
    return Text(
        parameter.new_zeros(1, 1, config.joint_attention_dim),
        parameter.new_zeros(1, config.pooled_projection_dim),
    )


def _encoded(folder: Path, index: dict[str, Any], prompt: str, dtype: torch.dtype) -> Text:
    if not (index.get("text_encoder") or [None])[0]:
        raise ValueError(f"{folder}: expected text encoders for a prompt, found none; pass prompt=None")
    import diffusers

    pipeline_class = getattr(diffusers, str(index.get("_class_name")))
    pipeline = pipeline_class.from_pretrained(
        folder, vae=None, transformer=None, torch_dtype=dtype, local_files_only=True
    )
    settings: dict[str, Any] = {"prompt": prompt, "prompt_2": None}
    if "prompt_3" in pipeline_class.encode_prompt.__annotations__:
        settings |= {"prompt_3": None, "do_classifier_free_guidance": False}
    with torch.no_grad():
        encoded = pipeline.encode_prompt(**settings)
    # Stable Diffusion also gives what it makes of a negative prompt, FLUX the places of words.
    return Text(encoded[0], encoded[2] if "prompt_3" in settings else encoded[1])
