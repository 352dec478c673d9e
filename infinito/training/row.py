"""The parameters of one ordinary module as a row of the stacked engine, and that engine's optimisers on it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from infinito.training import optimisers
from infinito.training.program import ALIGNED
from infinito.training.trace import digest


def row_of(parameters: Sequence[Tensor]) -> Tensor:
    """Parameters one after the other, as a row of the stacked engine: [1, P], of at least single precision."""
    return torch.cat([flat(p) for p in parameters])[None]


def flat(p: Tensor) -> Tensor:
    """One parameter as its part of a row, filled up: [size]."""
    flat = (torch.view_as_real(p) if p.is_complex() else p).detach().flatten()
    return nn.functional.pad(flat.to(torch.promote_types(flat.dtype, torch.float32)), (0, -len(flat) % ALIGNED))


def update(
    optimiser: optimisers.Optimiser,
    layout: optimisers.Layout,
    clip_norm: float,
    row: Tensor,
    first: Tensor,
    second: Tensor,
    found: Tensor | list[Tensor],
    powers: Tensor,
    rate: Tensor,
    decay: Tensor,
) -> Tensor:
    """One step, in place, of weights and moments [1, P] by a gradient [1, P], or by its parts; gives a digest, []."""
    gradient = row_of(found) if isinstance(found, list) else found
    norm = gradient.square().sum(1).sqrt()
    gradient = gradient * (clip_norm / (norm + 1e-6)).clamp(max=1.0)[:, None]
    corrections = (1 - powers).float()
    updated = optimiser.update(row, gradient, first, second, rate[None, None], decay, corrections, layout)
    for old, new in zip((row, first, second), updated, strict=True):
        old.copy_(new)
    return digest(updated[0])[0]


class RowOptimiser(torch.optim.Optimizer):
    """An optimiser of the stacked engine, for one run, whose parameters become parts of one row.

    So clipping, step and digest are a few passes over the row, and nothing leaves the device: it can be recorded.

    Args:
        optimiser: the optimiser.
        groups: as of torch, each with its weight decay.
        rate: learning rate.
        clip_norm: largest norm of the gradient.
        parameters, kinds: all of them in their order, and what each of them is (see `optimisers.Layout`).
        update: `update`, or the same compiled.
    """

    def __init__(
        self,
        optimiser: optimisers.Optimiser,
        groups: list[dict[str, Any]],
        rate: Any,
        clip_norm: float,
        parameters: list[nn.Parameter],
        kinds: list[str],
        update: Callable[..., Tensor],
    ) -> None:
        super().__init__(groups, {"lr": rate})
        self.parameters, self.optimiser, self.clip_norm, self.update = parameters, optimiser, clip_norm, update
        self.sizes = sizes = [len(flat(p)) for p in parameters]
        self.layout = optimisers.Layout([p.shape for p in parameters], sizes, kinds)
        self.row = row_of(parameters)
        for p, part in zip(parameters, self.row[0].split(sizes), strict=True):
            p.data = part[: p.numel()].view_as(p)
        decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        fills = [torch.full((size,), decay[id(p)]) for p, size in zip(parameters, sizes, strict=True)]
        self.decay = (
            torch.cat(fills)[None].to(self.row)
            if len(set(decay.values())) > 1
            else self.row.new_full((1, 1), next(iter(decay.values())))
        )
        self.first, self.second = torch.zeros_like(self.row), torch.zeros_like(self.row)
        self.powers = torch.ones(2, dtype=torch.float64, device=self.row.device)  # of the betas
        self.betas = torch.tensor(optimiser.betas, dtype=torch.float64, device=self.row.device)

    @torch.no_grad()
    def step(self, gradient: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """One step by a gradient [1, P], or by those of the parameters, clipped; gives the digest of the new weights.

        That is an int32 [].
        """
        self.powers.mul_(self.betas)
        rate = torch.as_tensor(self.param_groups[0]["lr"], dtype=torch.float32, device=self.row.device)
        found = [p.grad for p in self.parameters if p.grad is not None] if gradient is None else gradient
        fixed = self.optimiser, self.layout, self.clip_norm
        return self.update(*fixed, self.row, self.first, self.second, found, self.powers, rate, self.decay)

    def state_dict(self) -> dict[str, Tensor]:
        """What it remembers; torch's own would round it to the type of the parameters."""
        return {"first": self.first, "second": self.second, "powers": self.powers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(state_dict[name])
