"""What torch is told so that every sum has a fixed order and every operation can be stacked."""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import torch


@functools.cache
def attention_by_products() -> None:
    """Let torch's attention layers, in this process, be made of matrix products and softmax, which can be stacked.

    Its fused kernels can't: they would run for one run after the other.
    """
    for fused in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{fused}_sdp")(False)  # on a CPU too
    torch.backends.mha.set_fastpath_enabled(False)


def choose_products(device: torch.device, precision: str) -> None:
    """Let this process's matrix products on a GPU have a fixed order, and this precision."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """Within this context torch's attention may use its fused kernels: for runs that are not stacked."""
    fused = {
        name: getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in ("flash", "mem_efficient", "cudnn")
    }
    fast = torch.backends.mha.get_fastpath_enabled()
    for name in fused:
        getattr(torch.backends.cuda, f"enable_{name}_sdp")(True)
    torch.backends.mha.set_fastpath_enabled(False)  # or evaluation would round as whoever came before had it
    try:
        yield
    finally:
        for name, enabled in fused.items():
            getattr(torch.backends.cuda, f"enable_{name}_sdp")(enabled)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def fixed_order(device: torch.device, precision: str, *, strict: bool = True) -> Iterator[None]:
    """Within this context torch takes algorithms that add in a fixed order, and compiles such ones.

    Compiled code for CPUs adds with atomics, too, and then depends on the threads. One thread at a time. What has no
    such algorithm is an error, or, where this is not `strict`, a warning.
    """
    choose_products(device, precision)
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    memory.fill_uninitialized_memory = False  # it only finds bugs, and takes kernels to do so
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        memory.fill_uninitialized_memory = before[1]
