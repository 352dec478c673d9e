"""A network is tried out, before anything is trained: do the seeds decide its weights, does its output fit the task?"""

import functools
import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from infinito import tasks, training
from infinito.tasks.tokens import Tokens
from infinito.training.objective import outputs_of
from infinito.training.program import lazy

logger = logging.getLogger(__name__)


def try_out(
    name: str, make: Callable[[], nn.Module], data: tasks.Data, shorter: Callable[[], nn.Module] | None = None
) -> None:
    """Make a network twice from one init seed and once from another, and call it on a few examples.

    Args:
        name: of the network, for the messages.
        make: makes it.
        data: the task.
        shorter: makes the same for inputs that are shorter by one, where a task has a length.

    Raises:
        ValueError: in one line: initial weights that the init seed does not decide, nothing to be trained, a failing
            forward pass, outputs of another shape than the task's.
    """
    inputs = _few(data)
    network, again, other = (_made(name, make, inputs, seed) for seed in (0, 0, 1))
    if not any(p.requires_grad for p in network.parameters()):
        raise ValueError(f"network: {name!r} has no parameter that can be trained (requires_grad)")
    for key, value in _tensors(network).items():
        if not torch.equal(value, _tensors(again)[key]):
            raise ValueError(
                f"network: {name!r}: two networks of one init seed differ in {key}: its constructor draws by a "
                "generator of its own, or by the clock or the system; instead: functions of torch without a "
                "generator, numpy.random or random, which the init seed decides"
            )
    same = [
        key
        for key, p in network.named_parameters()
        if p.requires_grad and bool((p != p.flatten()[0]).any()) and torch.equal(p, other.state_dict()[key])
    ]
    if same:
        _say_equal(name, same[0])
    shape = (len(inputs), *data.task.output)
    with training.drawing(0, "unused"), torch.no_grad():
        outputs = _called(name, network, inputs)
    if not isinstance(outputs, Tensor):
        found = f"a {type(outputs).__name__}"
        raise ValueError(f"network: {name!r} gives {found}; allowed: a tensor {shape}, or an object with it as .logits")
    fits = outputs.shape == shape
    if isinstance(data.task, Tokens) and outputs.ndim == len(shape):  # a vocabulary may be filled up
        fits = outputs.shape[:-1] == shape[:-1] and outputs.shape[-1] >= shape[-1]
    if not fits or _transposed([lambda: network, *([shorter] if shorter else [])], inputs, data):
        also = ", the vocabulary last" if fits else ""
        raise ValueError(f"network: {name!r} gives {tuple(outputs.shape)}; allowed: {shape}, as the task has it{also}")


def _few(data: tasks.Data) -> Tensor:
    """Some inputs, so many that their number is no other size of the outputs: a transposed output must not fit."""
    least = next(n for n in range(2, 3 + len(data.task.output)) if n not in data.task.output)
    inputs = data.validation.inputs[:least].cpu()
    return inputs if len(inputs) == least else inputs[:1].expand(least, *inputs.shape[1:])


def _made(name: str, make: Callable[[], nn.Module], inputs: Tensor, seed: int) -> nn.Module:
    with training.drawing(seed, "init"), torch.no_grad():
        network = make().eval()
        if lazy(network):
            _called(name, network, inputs)  # which draws the rest
    return network


def _called(name: str, network: nn.Module, inputs: Tensor) -> object:
    try:
        return outputs_of(network(inputs))
    except (Exception, SystemExit) as error:  # a user's network may raise anything
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"network: {name!r} fails on the task: {type(error).__name__}: {reason}") from error


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}


def _transposed(makes: Sequence[Callable[[], nn.Module]], inputs: Tensor, data: tasks.Data) -> bool:
    """Whether a square output [B, T, V] is one [B, V, T]; the first network that takes a shorter input tells."""
    output = data.task.output
    if len(output) != 2 or output[0] != output[1] or inputs.shape[1:] != output[:1] or output[0] < 2:
        return False
    for make in makes:
        try:
            with training.drawing(0, "unused"), torch.no_grad():
                found = outputs_of(make().eval()(inputs[:, :-1]))
        except Exception:  # it takes one length only
            continue
        return bool(found.shape == (len(inputs), output[1], output[0] - 1))
    return False


@functools.cache
def _say_equal(name: str, parameter: str) -> None:
    """Once per process."""
    logger.warning(
        "network %r: its initial %s is the same for every init seed (loaded, or drawn from a seed of its own)",
        name,
        parameter,
    )
