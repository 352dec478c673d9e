"""A small convolutional network (after LeCun et al. 1998).

Shapes: B batch, C channels of the image, D width, H height, W width of the image, K outputs.
"""

from torch import Tensor, nn

from infinito.networks.outputs import outputs_of
from infinito.operations.augmentation import Flip, Shift


class Convolutional(nn.Module):
    """Blocks of convolution 3 x 3, normalisation, ReLU, mean over 2 x 2 and dropout; then a linear head.

    An image that is down to one row or column is not made smaller. The mean and not the maximum, whose gradient has no
    fixed order of additions on a GPU.

    Args:
        shape: of one image, (C, H, W).
        classes, labels, outputs: K; one of them, as the task has it.
        width, layers: D, the channels of every block, and how many blocks there are.
        dropout: rate behind every block.
        shift, flip: augmentation in training: by how many pixels images are moved, whether they are mirrored.
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
        shift: int = 0,
        flip: bool = False,
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"shape: found {tuple(shape)}; allowed: an image's (channels, height, width)")
        channels, height, across = shape
        self.augmentation = nn.Sequential(*([Shift(shift)] if shift else []), *([Flip()] if flip else []))
        self.blocks = nn.ModuleList()
        for _ in range(layers):
            smaller = min(height, across) > 1
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(channels, width, 3, padding=1),
                    nn.GroupNorm(1, width),
                    nn.ReLU(),
                    nn.AvgPool2d(2) if smaller else nn.Identity(),
                    nn.Dropout(dropout),
                )
            )
            channels = width
            height, across = (height // 2, across // 2) if smaller else (height, across)
        self.output_projection = nn.Linear(channels * height * across, outputs_of(classes, labels, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, K]."""
        x = self.augmentation(x)
        for block in self.blocks:
            x = block(x)
        return self.output_projection(x.flatten(1))
