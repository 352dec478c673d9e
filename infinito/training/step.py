"""A step of one run of the loop, eagerly or compiled, on a GPU recorded where all of it can be."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from infinito.operations.noise import sites
from infinito.training.objective import Objective
from infinito.training.replay import Replay
from infinito.training.row import RowOptimiser, row_of
from infinito.training.run import Run
from infinito.training.trace import digest


class Step:
    """Takes the steps of a run: eagerly or compiled, on a GPU recorded where all of it can be."""

    def __init__(self, run: Run) -> None:
        loop = run.loop
        self.run, self.loop = run, loop
        self.objective = Objective(run.network, [], loop.task, loop.smoothing)
        self.parameters = list(run.trained.values())
        self.key = torch.zeros(2, dtype=torch.int32, device=loop.device)
        for place in sites(run.network).values():
            place.key = self.key
        self.digest: Callable[[list[Tensor]], Tensor] = digest_of
        self.batch: tuple[Tensor, Tensor] | None = None
        self.launched: tuple[torch.cuda.Event, int] | None = None
        self.replay: Replay | None = None
        self.loss = torch.zeros((), device=loop.device)
        self.check = torch.zeros((), dtype=torch.int32, device=loop.device)

    def take(self, t: int, inputs: Tensor, targets: Tensor, rate: float, key: Tensor) -> None:
        """Step t, counted from 0; key: int32 [2], of its noise."""
        self.key.copy_(key)
        groups = self.run.optimiser.param_groups
        for shared in {id(group["lr"]): group["lr"] for group in groups if isinstance(group["lr"], Tensor)}.values():
            shared.fill_(rate)
        for group in groups:
            if not isinstance(group["lr"], Tensor):
                group["lr"] = rate
        if self.loop.device.type == "cpu":
            self.loss, self.check = self.plain(inputs, targets)
        else:
            self.on_gpu(inputs, targets)
        self.run.losses[t], self.run.trace[t] = self.loss, self.check

    def plain(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Forward, backward, clipping, and the optimisers' step."""
        optimiser = self.run.optimiser
        if isinstance(optimiser, RowOptimiser) and self.loop.whole:
            loss, gradient = self.loop.gradient(self.objective, optimiser, inputs, targets)
            return loss, optimiser.step(gradient)
        for p in self.parameters:
            p.grad = None
        objective, loss = self.loop.losses(self.objective, inputs, targets)
        objective.backward()
        for p in self.parameters:
            if p.grad is None:  # a parameter that nothing uses still decays
                p.grad = torch.zeros_like(p)
            elif p.grad.is_sparse:
                p.grad = p.grad.to_dense()
        if isinstance(optimiser, RowOptimiser):
            return loss.detach(), optimiser.step()
        nn.utils.clip_grad_norm_(self.parameters, float(self.run.settings.clip_norm))  # type: ignore[arg-type]
        optimiser.step()
        return loss.detach(), self.digest(self.parameters)

    def on_gpu(self, inputs: Tensor, targets: Tensor) -> None:
        """As `plain`; recorded after the first step, where that can be."""
        if self.batch is None:
            self.batch = inputs.clone(), targets.clone()
            self.digest = self.loop.fastdigest_of
        for here, value in zip(self.batch, (inputs, targets), strict=True):
            here.copy_(value)

        def step() -> None:
            assert self.batch is not None
            loss, check = self.plain(*self.batch)
            self.loss.copy_(loss)
            self.check.copy_(check)

        if self.replay is None:
            step()
            self.replay = Replay(step) if self.loop.recorded else None
        else:
            self.replay()

    def finished(self, t: int) -> int:
        """How many of t steps are done; on a GPU all but those since the last call, so that it need not wait."""
        if self.loop.device.type == "cpu":
            return t
        before, self.launched = self.launched, (torch.cuda.current_stream().record_event(), t)
        event, done = before or self.launched
        event.synchronize()
        return done


def digest_of(parameters: list[Tensor]) -> Tensor:
    return digest(row_of(parameters))[0]
