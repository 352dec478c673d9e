"""How much memory a stack will take, told before it is trained, and how many runs fit on a device."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from infinito.operations.embedding import compared
from infinito.operations.noise import keyed
from infinito.tasks import Data
from infinito.training import Objective, drawing
from infinito.training.program import called, slots
from infinito.training.stacked import BEAT

ROWS = 4  # weights, two moments, gradient
MARGIN = 1.25  # a language model of one run took 1.15 times what is predicted (benchmarks/results/gpu.json)
SHARE = 0.85  # of a device's memory that a stack may take
CPU_WIDTH = 8  # a wider stack falls out of the cache (benchmarks/results/growth.json)
MOST = 1024  # an H100 is full long before (benchmarks/results/gpu.json)


def bytes_per_run(
    make: Callable[[], nn.Module],
    data: Data,
    steps: int,
    batch: int,
    precision: str = "float32",
    device: str = "cpu",
    *,
    smoothing: float = 0.0,
    best: bool = False,
) -> int:
    """Bytes that a run adds to a stack: its rows, what its forward pass keeps for the backward pass, its schedule.

    The pass is run on tensors without contents, so that it takes no memory itself: only the network is made.

    Args:
        make: makes the network.
        data: the task.
        steps, batch, precision, device, smoothing: as it will be trained; a GPU keeps less (`operations.fused`).
        best: whether the best weights so far are kept too.
    """
    kept: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        alive.append(storage)
        kept[storage._cdata] = storage.nbytes()
        return tensor

    shapes = [(batch, *part.shape[1:]) for part in (data.validation.inputs, data.validation.targets)]
    types = [part.dtype for part in (data.validation.inputs, data.validation.targets)]
    with drawing(0, "unused"):  # with contents: constructors look at what they draw
        network = compared(keyed(make())).train()
    objective = Objective(network, [], data.task, smoothing)
    tensors = dict(objective.named_parameters()) | dict(objective.named_buffers())
    with FakeTensorMode(), torch.device(device):
        empty = {n: torch.empty(x.shape, dtype=x.dtype).requires_grad_(x.requires_grad) for n, x in tensors.items()}
        own = {x.untyped_storage()._cdata for x in empty.values()}
        inputs, targets = (torch.zeros(shape, dtype=kind) for shape, kind in zip(shapes, types, strict=True))
        with (
            saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            called(objective, slots(objective), empty, inputs, targets)
    rows = (ROWS + best) * sum(p.numel() * p.element_size() for p in network.parameters())
    sizes = [size for storage, size in kept.items() if storage not in own]
    activations = sum(sizes) + max(sizes, default=0)  # and the gradient of the largest of them
    ready = BEAT * sum(x.numel() * x.element_size() for x in (inputs, targets))  # of the next steps
    return rows + activations + ready + steps * (batch + 1) * 8  # order of the data, keys of the noise


def width(runs: int, per_run: int, device: str) -> int:
    """How many runs to train together, of `runs` that there are: as many as fit, in stacks of nearly equal size.

    It depends on the kind of device only, not on what else is on it, for the width is part of what makes equal bits.

    Args:
        runs: in all.
        per_run: bytes (see `bytes_per_run`).
        device: cpu or cuda.

    Raises:
        ValueError: not even one run fits.
    """
    if device == "cpu":
        return min(runs, CPU_WIDTH)
    total = torch.cuda.get_device_properties(0).total_memory
    most = min(MOST, int(SHARE * total / (MARGIN * per_run)))
    if most < 1:
        raise ValueError(
            f"train: one run takes about {MARGIN * per_run / 2**30:.1f} GiB, the device has {total / 2**30:.1f}: "
            "make the network or train.batch smaller"
        )
    return math.ceil(runs / math.ceil(runs / most))
