"""The ASTRA toolbox as our engines use it: imported late, objects deleted in time, CUDA asked for first."""

from __future__ import annotations

import weakref
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


def import_astra() -> Any:
    """Import ASTRA, or say in one line what is missing."""
    try:
        return import_module("astra")
    except ImportError as error:
        raise ModuleNotFoundError(
            'projector "astra" computes line integrals with the ASTRA toolbox, which is not installed: '
            "pip install astra-toolbox"
        ) from error


class Handle:
    """One ASTRA projector, deleted with this object."""

    def __init__(self, kind: str, projection: Any, volume: Any, **settings: Any) -> None:
        astra = import_astra()
        room = astra.projector3d if kind == "cuda3d" else astra.projector
        settings |= {"ProjectionGeometry": projection, "VolumeGeometry": volume}
        self.id: int = room.create({"type": kind, **settings})
        weakref.finalize(self, room.delete, self.id)


def require_single(batch: Tensor) -> None:
    """Raise ValueError for a tensor that is not float32."""
    if batch.dtype != torch.float32:
        raise ValueError(f'projector "astra": expected dtype torch.float32, found {batch.dtype}')


def require_cuda() -> None:
    """Raise ValueError where ASTRA or torch has no working CUDA.

    Without a driver ASTRA's 3-D calls end the process and its 2-D calls return zeros: ask, never try.
    """
    if not (torch.cuda.is_available() and import_astra().use_cuda()):
        raise ValueError('projector "astra": found a CUDA tensor, but ASTRA or torch has no working CUDA')


def run_cuda(handle: Handle, direction: str, source: Tensor, target: Tensor) -> None:
    """Call ``direct_FP`` or ``direct_BP`` of a 3-D projector on CUDA tensors, and see that it wrote."""
    target.fill_(torch.nan)
    # ASTRA works on the default stream and knows nothing of the one that fills these tensors.
    torch.cuda.current_stream(source.device).synchronize()
    getattr(import_astra().projector3d, direction)(handle.id, source, out=target)
    if torch.isnan(target.view(-1)[-1]) and not torch.isnan(source).any():
        raise RuntimeError(f"ASTRA {direction} on {source.device} failed and wrote nothing")
