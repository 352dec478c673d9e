"""How a step is compiled."""

import ctypes
import functools
import inspect
import itertools
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import torch

NUMBERS = itertools.count()
NARROW = 32  # runs, up to which a step on a GPU waits for its launches more than for its arithmetic


def compiler() -> str | None:
    """Where torch.compile finds its C++ compiler, or None."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


@functools.cache
def compiler_version() -> str | None:
    """What that compiler says it is; it chooses which product and sum become one instruction, and so the last bits."""
    path = compiler()
    if path is None:
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True)
    return next(iter(done.stdout.splitlines()), None)


def apart(function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """torch.compile for fixed shapes, with a limit of 8 compilations of its own, not one that a process shares."""
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:  # from torch 2.13 on
        how["isolate_recompiles"] = True
    elif isinstance(function, types.FunctionType):  # there torch counts by the code object
        code = function.__code__.replace(co_name=f"{function.__name__}_{next(NUMBERS)}")
        function = types.FunctionType(code, function.__globals__, None, function.__defaults__, function.__closure__)
    return torch.compile(function, dynamic=False, **how)


@functools.cache
def keep_freed_memory() -> None:
    """Tell the C library to keep freed memory instead of returning it to the system (Linux with glibc only).

    Every step allocates the same buffers again; getting them fresh from the kernel, page by page, cost 5 to 15 % of a
    step on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((-1, 2**31 - 1), (-2, 2**26), (-3, 2**30)):  # trim threshold, top pad, mmap threshold
            mallopt(option, value)


def compiled(step: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """The step as one program; its first argument is the weights [S, P]. Compiles when it is first called."""
    options: dict[str, Any] = {}
    if device.type == "cpu":
        # one C++ file for the whole step: a third of the compile time of a file per kernel, and no helpers
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        options["cpp_wrapper"] = True
        options["cpp.enable_floating_point_contract_flag"] = "fast"  # a product and a sum by one instruction
        options["memory_planning"] = True
    wide = apart(step, options=options, fullgraph=True)
    if device.type == "cpu":
        return wide
    # small kernels that don't depend on each other are launched as one: a sixth faster for 10 small networks, half as
    # fast for 1000 (benchmarks/results/gpu_combined_kernels.json)
    narrow = apart(step, options=options | {"combo_kernels": True}, fullgraph=True)

    def call(weights: torch.Tensor, *others: Any) -> Any:
        return (narrow if len(weights) <= NARROW else wide)(weights, *others)

    return call
