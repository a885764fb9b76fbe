"""Device, precision and memory of PyTorch, and tensors from arrays."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headstart.errors import SettingError, nearest
from headstart.records import DEVICES

__all__ = ["STATISTICS", "chosen_device", "keep_freed_memory", "named_weights", "tensor", "use_bf16"]


def chosen_device(name: str) -> torch.device:
    """The device of this name, or SettingError; ``auto`` takes an accelerator that torch can use, else the CPU."""
    if name not in DEVICES:
        raise SettingError(
            f"device is {name!r}, expected one of {', '.join(DEVICES)}; {nearest(name, DEVICES)}"
        )
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(one for one, found in there.items() if found))
    if not there[name]:
        raise SettingError(
            f"device is {name!r}, which torch does not find, expected an available device; use auto"
        )
    return torch.device(name)


def named_weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, then batch-norm statistics, by their names in the canonical layout; not copies."""
    found: dict[str, Tensor] = dict(module.named_parameters())
    for name, one in module.named_buffers():
        before, _, last = name.rpartition(".")
        if last in STATISTICS:
            found[f"{before}.{STATISTICS[last]}"] = one
    return found


def tensor(array: NDArray[Any]) -> Tensor:
    """The array's memory as a tensor; a copy where it is read-only, because torch warns about those."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bf16: only where the machine multiplies it faster than fp32.

    Intel CPUs do so in tiles (AMX) only: without them, as under some hypervisors, a step of 16 photos takes
    MobileNetV1 0.95 s in bf16 and 0.67 s in fp32, and a thousand digits take `best` 0.50 s and 0.42 s (2 cores of a
    Xeon, 2026-11-28). AMD's vector units multiply twice as many bf16 as fp32 numbers.
    """
    if precision == "fp32":
        return False
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if str(has.get("cpu_name", "")).startswith("Intel") and not has.get("amx_bf16", False):
        return False
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


_KEPT: list[bool] = []


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks instead of returning them to the kernel after every step.

    A step frees and allocates tens of megabytes, and each time the kernel must clear the pages. Measured
    2026-11-20 on 2 cores, CNN, batch 128, bf16: 13.0 ms per step without, 7.3 ms with.
    """
    if _KEPT or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)
    _KEPT.append(True)


STATISTICS = {"running_mean": "mean", "running_var": "variance"}
