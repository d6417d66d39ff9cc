"""The pixel-space velocity network: a U-Net from diffusers that corrects a Gaussian's velocity."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ctflow.flows.path import AffinePath


@dataclass(frozen=True)
class NetworkSettings:
    """What makes a `VelocityNetwork`.

    Attributes
    ----------
    channels
        1 for real images, 2 for complex ones.
    widths
        Feature maps at each resolution; each level halves the last one.
    layers
        Residual blocks at each level.
    patch
        Images enter as `patch` x `patch` blocks of pixels stacked in channels, which makes the network
        that much faster for the same field of view.
    groups
        Of the group normalisation; divides every width.
    data_mean, data_std
        Of the training images' pixels, in network units.
    """

    channels: int = 1
    widths: tuple[int, ...] = (64, 96, 128)
    layers: int = 1
    patch: int = 2
    groups: int = 8
    data_mean: float = -0.5
    data_std: float = 0.5

    def __post_init__(self) -> None:
        """Refuse widths that the groups do not divide."""
        object.__setattr__(self, "widths", tuple(self.widths))
        for name in ("channels", "layers", "patch", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"network: {name}: expected at least 1, found {getattr(self, name)}")
        if not self.widths or any(width % self.groups for width in self.widths):
            raise ValueError(f"network: widths: expected multiples of {self.groups}, found {self.widths}")
        if self.data_std <= 0:
            raise ValueError(f"network: data_std: expected a positive value, found {self.data_std}")

    @property
    def multiple(self) -> int:
        """Height and width of an input must be multiples of this."""
        return int(self.patch * 2 ** (len(self.widths) - 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for files."""
        return asdict(self)


class VelocityNetwork(torch.nn.Module):
    """(x, t) to velocity: that of the Gaussian with the data's mean and variance, plus a learned correction.

    The Gaussian part is exact for white data, and carries the whole scale of the answer at both ends of
    the path; the correction has unit variance for every t, so that the network's input and target are
    of one size throughout, as in Karras et al. (arXiv 2206.00364), here for any affine path.

    Fully convolutional: any height and width that are multiples of `settings.multiple`.

    Parameters
    ----------
    settings
        Sizes.
    path
        Whose velocity is to be learned.
    precision
        "bfloat16" runs the convolutions in that precision (autocast); parameters stay as they are.
    """

    def __init__(self, settings: NetworkSettings, path: AffinePath, precision: str = "float32") -> None:
        super().__init__()
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision: expected float32 or bfloat16, found {precision!r}")
        self.settings, self.path, self.precision = settings, path, precision
        self.unet = _unet(settings)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity at x, shape (batch, channels, height, width), and t, shape (batch,)."""
        settings = self.settings
        alpha, beta, alpha_dot, beta_dot = self.path.at(t, x)
        variance = settings.data_std**2
        total = alpha.square() * variance + beta.square()
        deviation = x - alpha * settings.data_mean
        scaled = torch.nn.functional.pixel_unshuffle(deviation * total.rsqrt(), settings.patch)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            parameter = next(self.unet.parameters())
            features = scaled.to(parameter.dtype).contiguous(memory_format=torch.channels_last)
            correction = self.unet(features, t.to(parameter.dtype) * 1000, return_dict=False)[0]
        correction = torch.nn.functional.pixel_shuffle(correction.to(x.dtype), settings.patch)
        gain = (alpha * alpha_dot * variance + beta * beta_dot) / total
        spread = (alpha_dot * beta - alpha * beta_dot).abs() * settings.data_std * total.rsqrt()
        return alpha_dot * settings.data_mean + gain * deviation + spread * correction


def _unet(settings: NetworkSettings) -> torch.nn.Module:
    from diffusers import UNet2DModel

    levels = len(settings.widths)
    folded = settings.channels * settings.patch**2
    unet: Any = UNet2DModel(
        in_channels=folded,
        out_channels=folded,
        block_out_channels=settings.widths,
        layers_per_block=settings.layers,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        # Attention would cost the square of the number of pixels, and tie the network to one size.
        add_attention=False,
        norm_num_groups=settings.groups,
        resnet_time_scale_shift="scale_shift",
    )
    # Convolutions on a CPU are faster with the channels innermost.
    return cast(torch.nn.Module, unet.to(memory_format=torch.channels_last))
