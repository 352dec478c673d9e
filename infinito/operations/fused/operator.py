"""An operator of our own, made of kernels, that works under vmap, grad and torch.compile at once.

torch offers two ways that each miss one of the three: `torch.library.custom_op` with `register_autograd` can't be
differentiated by torch.func, and a `torch.autograd.Function` can't be compiled under vmap. So the operator is
registered as torch registers its own: below autograd the kernels, with rules for vmap that fold the axis of runs into
the first axis of the operator; at the level of autograd one node, seen by every level of torch.func. For that node
torch has private names only: a version that has them no more runs the plain code, and says so once.
"""

import importlib
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def _private() -> tuple[Any, Any, Any] | None:
    """What of torch a node stands on that is not public; None where this version lacks it."""
    try:
        single = importlib.import_module("torch._functorch.autograd_function").enable_single_level_autograd_function
        node = importlib.import_module("torch.autograd.function")._SingleLevelFunction
        return single, node, torch._C._AutoDispatchBelowAutograd
    except (ImportError, AttributeError) as error:
        logger.warning("torch %s lacks what the kernels stand on (%s): the plain code runs", torch.__version__, error)
        return None


HAS_TRITON = importlib.util.find_spec("triton") is not None
PRIVATE = _private()
HAS_KERNELS = HAS_TRITON and PRIVATE is not None


@dataclass(frozen=True)
class Kernel:
    """Arguments and results as torch.library writes them; the call; the shapes of the results, without a call.

    Tensors come before numbers; their first axis is that of examples or runs. The call gets contiguous tensors.
    """

    schema: str
    call: Callable[..., Any]
    shapes: Callable[..., Any]


def late(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is imported when it is first called: kernels need Triton."""

    def call(*arguments: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments)

    return call


def _contiguous(call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*arguments: Any) -> Any:
        return call(*(value.contiguous() if isinstance(value, Tensor) else value for value in arguments))

    return wrapped


def _fold(value: Any, axis: int | None, runs: int) -> Any:
    """The axis of runs into the first of the others; what all runs share is repeated."""
    if not isinstance(value, Tensor):
        return value
    value = value.expand(runs, *value.shape) if axis is None else value.movedim(axis, 0)
    return value.flatten(0, 1)


def _rule(operator: Any) -> Callable[..., Any]:
    """The rule for vmap: fold, call, unfold."""

    def rule(info: Any, axes: tuple[int | None, ...], *arguments: Any) -> Any:
        results = operator(*(_fold(value, axis, info.batch_size) for value, axis in zip(arguments, axes, strict=True)))
        if isinstance(results, Tensor):
            return results.unflatten(0, (info.batch_size, -1)), 0
        return tuple(result.unflatten(0, (info.batch_size, -1)) for result in results), (0,) * len(results)

    return rule


def _register(name: str, kernel: Kernel) -> Any:
    torch.library.define(name, kernel.schema)
    for device in ("CUDA", "CPU"):  # on a CPU only Triton's interpreter can run it
        torch.library.impl(name, device, _contiguous(kernel.call))
    torch.library.register_fake(name, kernel.shapes)
    operator = getattr(torch.ops.infinito, name.removeprefix("infinito::"))
    torch.library.register_vmap(name, _rule(operator))
    return operator


def define(
    name: str,
    forward: Kernel,
    backward: Kernel,
    saved: Callable[[tuple[Any, ...], tuple[Tensor, ...]], tuple[tuple[Tensor | None, ...], tuple[Any, ...]]],
    differentiable: tuple[int, ...],
) -> Any:
    """Register an operator and its gradient.

    Args:
        name: of the operator, `torch.ops.infinito.<name>`.
        forward: gives several tensors.
        backward: from the gradients of the differentiable results, None where there is none, and then what `saved`
            gives, the gradients of the first arguments; all others have none.
        saved: from the arguments and the results what `backward` needs: tensors, numbers.
        differentiable: which results have a gradient.

    Returns:
        The operator; None where torch has no place for it.
    """
    if PRIVATE is None:
        return None
    single_level, single_level_function, below_autograd = PRIVATE
    inner = _register(f"infinito::{name}_forward", forward)
    gradient = _register(f"infinito::{name}_backward", backward)
    operator = _register(f"infinito::{name}", forward)

    class Node(single_level_function):  # type: ignore[misc, valid-type]
        @staticmethod
        def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
            with below_autograd():
                results: tuple[Tensor, ...] = inner(*arguments)
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*(r for i, r in enumerate(results) if i not in differentiable))
            tensors, ctx.numbers = saved(arguments, results)
            ctx.save_for_backward(*tensors)
            ctx.arguments = len(arguments)
            return results

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
            found = gradient(*(gradients[i] for i in differentiable), *ctx.saved_tensors, *ctx.numbers)
            found = (found,) if isinstance(found, Tensor) else tuple(found)
            return found + (None,) * (ctx.arguments - len(found))

    def node(*arguments: Any) -> Any:
        with single_level():
            return Node.apply(*arguments)

    torch.library.impl(f"infinito::{name}", "Autograd", node)
    return operator
