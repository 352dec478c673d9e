"""The multilayer perceptron; without hidden layers it is a linear model.

Shapes: B batch, D width, K outputs; an example has any shape.
"""

import math

from torch import Tensor, nn

from infinito.networks.outputs import outputs_of


class MLP(nn.Module):
    """Hidden layers of ReLU on the flattened example, each with dropout, then a linear head.

    Args:
        shape: of one example.
        classes, labels, outputs: K; one of them, as the task has it.
        width, layers: D, number of hidden layers; 0 for a linear model.
        dropout: rate behind every hidden layer.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        width: int,
        layers: int,
        dropout: float,
        classes: int | None = None,
        labels: int | None = None,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        sizes = [math.prod(shape), *[width] * layers]
        self.hidden_layers = nn.ModuleList(
            nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout))
            for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.output_projection = nn.Linear(sizes[-1], outputs_of(classes, labels, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, *shape] -> [B, K]."""
        h = x.flatten(1)
        for layer in self.hidden_layers:
            h = layer(h)
        return self.output_projection(h)
