"""Pipelines of latent priors, tiny and untrained, as diffusers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
)

CHANNELS, WIDTH = 4, 8


def autoencoder() -> Any:
    """Halves a picture's height and width; scaled and shifted like that of Stable Diffusion 3."""
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=CHANNELS,
        norm_num_groups=4,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def stable_diffusion() -> Any:
    torch.manual_seed(1)
    return SD3Transformer2DModel(
        sample_size=16,
        in_channels=CHANNELS,
        num_layers=1,
        attention_head_dim=WIDTH,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=2 * WIDTH,
        pooled_projection_dim=WIDTH,
        out_channels=CHANNELS,
        pos_embed_max_size=16,
    )


def flux(guidance_embeds: bool = False) -> Any:
    torch.manual_seed(1)
    return FluxTransformer2DModel(
        in_channels=4 * CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=WIDTH,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(2, 2, 4),
    )


def saved(folder: Path, transformer: Any) -> Path:
    """The folder, in which a pipeline without text encoders now lies."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    parts = {"transformer": transformer, "vae": autoencoder(), "scheduler": scheduler}
    index: dict[str, Any] = {"_class_name": "StableDiffusion3Pipeline"}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = ["diffusers", type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
