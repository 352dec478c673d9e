"""Networks over images, as people write them.

Shapes: B batch, C channels, H and W the image. All take images [B, C, H, W] and give logits [B, classes].
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Basic(nn.Module):
    """Two convolutions, each normalised by its batch, and the input added (He et al., 2016)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.two = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(out) for _ in range(2))
        self.short = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1, stride, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norms[0](self.one(x)))
        return self.relu(self.norms[1](self.two(y)) + self.short(x))


class ResNet(nn.Sequential):
    def __init__(self, shape: tuple[int, ...], classes: int, width: int, **_: Any) -> None:
        super().__init__(
            nn.Conv2d(shape[0], width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            Basic(width, width, 1), Basic(width, 2 * width, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes),
        )  # fmt: skip


class Vgg(nn.Sequential):
    """Convolutions, pooling, dropout before the classifier (Simonyan and Zisserman, 2015)."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int, dropout: float, **_: Any) -> None:
        super().__init__(
            nn.Conv2d(shape[0], width, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(2 * width * (shape[1] // 4) * (shape[2] // 4), classes),
        )  # fmt: skip


class VisionTransformer(nn.Module):
    """Patches, a class token, the encoder of torch.nn (Dosovitskiy et al., 2021)."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int, **_: Any) -> None:
        super().__init__()
        self.patches = nn.Conv2d(shape[0], width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 1 + (shape[1] // 4) * (shape[2] // 4), width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(len(y), -1, -1), y], 1) + self.places
        return self.head(self.encoder(y)[:, 0])


class UNet(nn.Module):
    """Down, up, and what was there before beside it (Ronneberger et al., 2015); pooled to one answer."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int, **_: Any) -> None:
        super().__init__()
        self.down = nn.Conv2d(shape[0], width, 3, padding=1)
        self.deep = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.join, self.out = nn.Conv2d(2 * width, width, 3, padding=1), nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.down(x))
        b = F.relu(self.deep(F.max_pool2d(a, 2)))
        up = F.interpolate(self.up(b), size=a.shape[-2:], mode="nearest")
        return self.out(F.relu(self.join(torch.cat([a, up], 1)))).mean((2, 3))


class MlpMixer(nn.Module):
    """One perceptron over patches, one over channels (Tolstikhin et al., 2021)."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int, **_: Any) -> None:
        super().__init__()
        patches = (shape[1] // 4) * (shape[2] // 4)
        self.patches = nn.Conv2d(shape[0], width, 4, 4)
        self.tokens = nn.Sequential(nn.Linear(patches, 8), nn.GELU(), nn.Linear(8, patches))
        self.channels = nn.Sequential(nn.Linear(width, 8), nn.GELU(), nn.Linear(8, width))
        self.one, self.two, self.head = nn.LayerNorm(width), nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = y + self.tokens(self.one(y).mT).mT
        return self.head((y + self.channels(self.two(y))).mean(1))


class ConvNeXt(nn.Module):
    """Depthwise convolution, norm over channels, a learned scale (Liu et al., 2022)."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int, **_: Any) -> None:
        super().__init__()
        self.stem, self.depth = nn.Conv2d(shape[0], width, 2, 2), nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale, self.head = nn.Parameter(torch.full((width,), 0.1)), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.down(F.gelu(self.up(self.norm(self.depth(x).permute(0, 2, 3, 1)))))
        return self.head((x + (self.scale * y).permute(0, 3, 1, 2)).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole image says (Hu et al., 2018)."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int, **_: Any) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(shape[0], width, 3, padding=1), nn.GroupNorm(2, width)
        self.gate = nn.Sequential(nn.Linear(width, 4), nn.SiLU(), nn.Linear(4, width), nn.Sigmoid())
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.norm(self.layer(x)))
        return self.head((y * self.gate(y.mean((2, 3)))[..., None, None]).amax((2, 3)))


class StochasticDepth(ResNet):
    """A block left out at random (Huang et al., 2016), by torch.rand as everybody writes it."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            if self.training and isinstance(layer, Basic) and x.shape[1] == layer.one.out_channels:
                keep = (torch.rand(len(x), 1, 1, 1, device=x.device) < 0.8).to(x.dtype)
                x = x + keep * (layer(x) - x)
            else:
                x = layer(x)
        return x
