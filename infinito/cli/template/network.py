"""The network under test: an ordinary module, for one model and one seed. docs/networks.md says what it is given."""

import torch
from torch import Tensor, nn


class Mixer(nn.Module):
    """Mixes positions and channels in turns (after Tolstikhin et al. 2021), to be replaced by your own.

    Args:
        vocabulary, length, causal: given by the task.
        width, layers, heads, dropout: shared by all arms (train.trunk); it has no heads.
        expansion: its own (train.candidate.settings).
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        causal: bool,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
        expansion: int,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.ModuleList(Positions(length, causal) for _ in range(layers))
        self.channels = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, expansion * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(expansion * width, width)
            )
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers))
        self.out = nn.Linear(width, vocabulary)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Integers [B, T] -> logits [B, T, V]."""
        h = self.embedding(input_ids)
        for i, (positions, channels) in enumerate(zip(self.positions, self.channels, strict=True)):
            h = h + positions(self.norms[2 * i](h))
            h = h + channels(self.norms[2 * i + 1](h))
        out: Tensor = self.out(h)
        return out


class Positions(nn.Module):
    """Every position becomes a weighted sum of all of them, or, where the task is causal, of none that comes later."""

    def __init__(self, length: int, causal: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, length).uniform_(-1, 1) / length**0.5)
        self.causal = causal

    def forward(self, h: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return (self.weight.tril() if self.causal else self.weight) @ h
