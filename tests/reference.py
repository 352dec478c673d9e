"""One run, trained the plain way: the readable loop that the engine must agree with.

Ordinary torch.nn, torch.optim and torch.nn.utils; no vmap, no stacking, no compiling.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infinito.operations.noise import keyed, restart, sites
from infinito.seeds import noise_keys
from infinito.tasks import IGNORE, Data
from infinito.training import Settings, drawing, learning_rate
from infinito.training.program import lazy
from infinito.training.randomness import borrowed, seed_step

THREE_STEPS = Settings(
    steps=3,
    batch=4,
    learning_rate=0.003,
    warmup=0,
    schedule="constant",
    weight_decay=0.01,
    clip_norm=1.0,
    curve_every=3,
)


@dataclass(frozen=True)
class Outcome:
    initial: dict[str, Tensor]
    final: dict[str, Tensor]
    losses: Tensor  # [steps]


@borrowed()
def train_one(
    make: Callable[[], nn.Module],
    data: Data,
    settings: Settings,
    init_seed: int,
    data_seed: int,
    noise_seed: int,
    *,
    keyed_noise: bool = True,
    optimisers: Callable[[nn.Module], list[torch.optim.Optimizer]] | None = None,
    progress: Callable[[int], None] = lambda step: None,
) -> Outcome:
    """Train one run.

    keyed_noise: False keeps torch's own dropout, and seeds the global generators before every step, as the loop does.
    optimisers: torch's own, for a network; else AdamW by the settings.
    """
    with drawing(init_seed, "init"):
        network = make()
        if lazy(network):  # what has no shape yet gets it, and its weights, from the first examples
            with torch.no_grad():
                network.eval()(data.validation.inputs[:2])
    if keyed_noise:
        network = keyed(network)
    network = network.train()
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    assert isinstance(settings.learning_rate, float) and isinstance(settings.clip_norm, float)
    used = (
        optimisers(network)
        if optimisers
        else [
            torch.optim.AdamW(
                network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
            )
        ]
    )
    order = data.order(data_seed, settings.steps, settings.batch)
    keys = noise_keys(noise_seed, settings.steps)
    places = sites(network).values()
    losses = torch.zeros(settings.steps)
    for step in range(settings.steps):
        if keyed_noise:
            for module in places:
                module.key = keys[step]
            restart(places)
        else:
            seed_step(keys[step])
        factor = learning_rate(step, settings.steps, settings.warmup, settings.schedule)
        for group in (group for optimiser in used for group in optimiser.param_groups):
            group["lr"] = settings.learning_rate * factor
        inputs, targets = data.batch(order[step])
        penalty: Tensor | float = 0.0
        if hasattr(network, "forward_with_penalty"):
            outputs, penalty = network.forward_with_penalty(inputs)
        else:
            outputs = network(inputs)
        if outputs.ndim == 3:  # tokens
            loss = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
        else:
            values, weights = data.task.losses(outputs, targets)
            loss = values.sum() / weights.sum()
        network.zero_grad()
        (loss + penalty).backward()
        for parameter in network.parameters():
            if parameter.requires_grad and parameter.grad is None:  # a parameter that nothing uses still decays
                parameter.grad = torch.zeros_like(parameter)
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
        for optimiser in used:
            optimiser.step()
        losses[step] = loss.detach()
        progress(step + 1)
    return Outcome(initial, {name: value.clone() for name, value in network.state_dict().items()}, losses)
