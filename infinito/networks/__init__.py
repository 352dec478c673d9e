"""Networks: ordinary single-model modules that know nothing of seeds, stacks or masks.

`build` makes one by name. A name with a colon, `package.module:Class`, is imported, so a user brings their own network
without a change here. A network takes a batch of its task's inputs and gives the task's outputs: for tokens, integer
[B, T] and logits [B, T, V]. It may define
`forward_with_penalty(input_ids) -> (logits, scalar)`; the scalar is then added to its training loss. Or, its own way to
the same loss, `nats_with_penalty(input_ids, targets) -> (cross-entropy of every token in nats [B, T], scalar)`.
"""

import importlib
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from infinito.networks.convolutional import Convolutional
from infinito.networks.infinito_v52 import InfinitoV52
from infinito.networks.mlp import MLP
from infinito.networks.transformer import Transformer

NETWORKS: dict[str, type[nn.Module]] = {
    "transformer": Transformer,
    "infinito_v52": InfinitoV52,
    "mlp": MLP,
    "convolutional": Convolutional,
}


def resolve(name: str) -> type[nn.Module]:
    """The class behind a name of `NETWORKS` or behind `package.module:Class`.

    Raises:
        ValueError: unknown name; module or class that can't be imported; class that is no `torch.nn.Module`.
    """
    if ":" not in name:
        if name not in NETWORKS:
            raise ValueError(f"network: {name!r} is unknown; allowed: {', '.join(NETWORKS)}, or package.module:Class")
        return NETWORKS[name]
    module_name, class_name = name.split(":", 1)
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # importing runs foreign code, which may raise anything
        reason = " ".join(str(error).split())
        raise ValueError(f"network: {name!r} can't be imported: {type(error).__name__}: {reason}") from error
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise ValueError(f"network: {name!r} is a {type(found).__name__}; it must be a torch.nn.Module class")
    return found


def build(name: str, **settings: Any) -> nn.Module:
    """A network with freshly drawn weights.

    Args:
        name: a key of `NETWORKS`, or `package.module:Class`.
        settings: what the task gives, the shared trunk, and the network's own.

    Raises:
        ValueError: see `resolve`; a setting the network doesn't take, misses or refuses.
    """
    network = resolve(name)
    try:
        inspect.signature(network).bind(**settings)
    except TypeError as error:
        raise ValueError(f"network: {name!r} does not fit its settings {sorted(settings)}: {error}") from error
    try:
        return network(**settings)
    except (Exception, SystemExit) as error:  # a user's constructor may raise anything
        reason = " ".join(str(error).split())
        raise ValueError(f"network: {name!r} refuses its settings: {type(error).__name__}: {reason}") from error


def with_weights(make: Callable[[], nn.Module], path: Path) -> nn.Module:
    """A network from `make` with the weights of a file.

    Args:
        make: makes the network.
        path: a state_dict as safetensors, or an original INFINITO V5.2 checkpoint. The latter has learned positions
            for 1000 tokens, of which as many are taken as the network has.

    Raises:
        ValueError: no such file, not readable, or names and shapes that are not those of the network.
    """
    network = make()
    try:
        state = load_file(path) if path.suffix == ".safetensors" else load_v52(path).state_dict()
        if isinstance(network, InfinitoV52):
            state["position_embedding"] = state["position_embedding"][:, : network.position_embedding.shape[1]]
        network.load_state_dict(state)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; allowed: a file of initial weights") from error
    except (KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: its weights don't fit the network: {reason}") from error
    return network


def flops(network: nn.Module, inputs: Tensor) -> int:
    """Floating point operations of one forward pass without gradients: the matrix products, which are nearly all."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(inputs)
    return int(counter.get_total_flops())


def load_v52(path: str | Path) -> InfinitoV52:
    """An original INFINITO V5.2 checkpoint, in evaluation mode.

    Raises:
        ValueError: the file is no such checkpoint, or its weights don't fit its own config.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        config, state = checkpoint["config"], checkpoint["model_state_dict"]
        network = InfinitoV52(
            vocabulary=config["vocab_size"],
            width=config["hidden_dim"],
            layers=config["num_layers"],
            heads=config["num_heads"],
            length=state["position_embedding"].shape[1],
            causal=False,
            dropout=0.1,
            lambda_phi=config.get("lambda_phi", 0.0),
            memory_slots=state["memory.memory_keys"].shape[0],
            gate="memory_gate" in state,
        )
        network.load_state_dict(state)
    except FileNotFoundError:
        raise
    except (KeyError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: not an INFINITO V5.2 checkpoint: {type(error).__name__}: {reason}") from error
    return network.eval()
