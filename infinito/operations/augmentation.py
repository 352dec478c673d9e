"""Augmentation of images inside a network: in training only, drawn anew for every example and every pass.

Both draw by `GaussianNoise`, so every run has its own draws, in either engine.

Shapes: B examples, C channels, H height, W width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infinito.operations.noise import GaussianNoise


class Flip(nn.Module):
    """Left and right change places in half of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = GaussianNoise()

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        if not self.training:
            return images
        return torch.where(self.noise(images[:, :1, :1, :1]) > 0, images.flip(-1), images)


class Shift(nn.Module):
    """Moves an image by up to `pixels` in both directions, each of the (2 pixels + 1)^2 ways as often; 0 comes in."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels
        self.noise = GaussianNoise()

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        if not self.training or not self.pixels:
            return images
        H, W, places = *images.shape[2:], 2 * self.pixels + 1
        drawn = self.noise(images[:, :1, :1, :1].expand(-1, 2, -1, -1))
        share = 0.5 * (1 + torch.erf(drawn * 0.5**0.5))  # uniform in 0..1
        down, right = (share * places).long().clamp(max=places - 1).unbind(1)  # [B, 1, 1] each
        wide = F.pad(images, [self.pixels] * 4)
        # a choice by comparison: indexing by a number of each example would not be stacked
        rows = torch.stack([wide[:, :, i : i + H] * (down == i)[:, None] for i in range(places)]).sum(0)
        return torch.stack([rows[..., j : j + W] * (right == j)[:, None] for j in range(places)]).sum(0)
