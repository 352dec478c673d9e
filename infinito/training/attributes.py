"""What a forward pass keeps in attributes of a network's modules, as hooks do with activations: forgotten afterwards.

A step of many runs is a function: a tensor that it left in an attribute would have to leave the compiled program, and
would belong to runs that are over. Only a network that reads what the call before has left remembers by attributes;
stacks refuse it (see `infinito.training.vectorizable`).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

MISSING = object()
OF_MODULES = frozenset(vars(nn.Module()))  # what every module has: parameters, hooks, the mode


class Kept(NamedTuple):
    """An attribute in which a call leaves tensors.

    before: what stood there before the first call, or MISSING.
    containers: the lists and mappings in it, each with what it held; they stay the objects that hooks know.
    """

    module: nn.Module
    name: str
    before: Any
    containers: list[tuple[Any, Any]]


def kept_by(network: nn.Module, call: Callable[[], object]) -> list[Kept]:
    """The attributes in which `call`, a forward pass, leaves tensors; afterwards they are as before."""
    own = [Kept(module, name, held, _containers(held)) for module in network.modules() for name, held in _own(module)]
    tensors = [[*map(id, _tensors(each.before))] for each in own]
    call()
    kept = [
        each
        for each, before in zip(own, tensors, strict=True)
        if [*map(id, _tensors(getattr(each.module, each.name, None)))] != before
    ]
    known = {(id(each.module), each.name) for each in own}
    kept += [
        Kept(module, name, MISSING, [])
        for module in network.modules()
        for name, held in _own(module)
        if (id(module), name) not in known and any(True for _ in _tensors(held))
    ]
    forget(kept)
    return kept


def forget(kept: list[Kept]) -> None:
    """Leave the attributes as they were before the first call."""
    for module, name, before, containers in kept:
        if before is not MISSING:
            setattr(module, name, before)
        elif hasattr(module, name):
            delattr(module, name)
        for container, held in containers:
            container.clear()
            if isinstance(container, dict):
                container.update(held)
            else:
                container.extend(held)


def _own(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in list(vars(module).items()) if name not in OF_MODULES)


def _containers(value: Any) -> list[tuple[Any, Any]]:
    """The lists and mappings in a value, however deep, each with a copy of what it holds."""
    if not isinstance(value, dict | list):
        return []
    inside = value.values() if isinstance(value, dict) else value
    return [(value, value.copy()), *(pair for held in inside for pair in _containers(held))]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for held in value.values() if isinstance(value, dict) else value:
            yield from _tensors(held)
