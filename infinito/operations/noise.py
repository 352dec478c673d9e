"""Keyed counter-based noise: a draw depends on nothing but its key, its site and its element index.

The generator is a stateless integer hash (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the two
multipliers are those of the bias-tested 32-bit finaliser of Wellons' hash prospector), written in plain tensor
arithmetic. So the noise of a run is the same alone or in a stack, in any lane, eager or compiled, on CPU or GPU, and
nothing global is touched.

A network stays an ordinary module: it uses `torch.nn.Dropout` and, for Gaussian noise, `GaussianNoise` below. `keyed`
swaps both for versions that draw from the `key` buffer which the engine hands in at every step.
"""

import math

import torch
from torch import Tensor, nn


def _signed(word: int) -> int:
    """The 32 low bits of a number, as int32 reads them."""
    return (word + 2**31) % 2**32 - 2**31


FIRST, SECOND = 0x7FEB352D, _signed(0x846CA68B)  # the multipliers of the two rounds


def _words(key: Tensor, site: int) -> tuple[Tensor, Tensor]:
    """Where the counter starts, and what enters between the two rounds; int32 [] each.

    The site changes both, so that streams whose counters overlap still differ. It enters by xor: compiled code was seen
    to round large constants of an addition to 24 bits.
    """
    return key[0] ^ _signed(site * 0x1E3779B1), key[1] ^ _signed(site * 0x3C6EF372)


def _bits(key: Tensor, site: int, shape: torch.Size) -> Tensor:
    """As `bits`, but only the upper 16 bits are well mixed: enough to toss a coin."""
    start, between = _words(key, site)
    x = torch.arange(math.prod(shape), dtype=torch.int32, device=key.device).view(shape)
    x = (x + start) * FIRST
    # torch has no logical shift for int32: the mask drops the copies of the sign
    return (x ^ ((x >> 15) & 0x1FFFF) ^ between) * SECOND


def bits(key: Tensor, site: int, shape: torch.Size) -> Tensor:
    """Uniform random 32-bit integers.

    Args:
        key: int32 [2], two words that name the run and the step.
        site: number of the drawing place in the network; every place has its own stream.
        shape: shape of the result.

    Returns:
        int32 tensor of `shape`.
    """
    x = _bits(key, site, shape)
    return x ^ ((x >> 16) & 0xFFFF)


def uniform(key: Tensor, site: int, shape: torch.Size) -> Tensor:
    """Uniform float32 in (0, 1), 2^24 values, never 0 or 1; arguments as in `bits`."""
    return (((bits(key, site, shape) >> 8) & 0xFFFFFF).to(torch.float32) + 0.5) * 2.0**-24


def normal(key: Tensor, site: int, shape: torch.Size) -> Tensor:
    """Standard normal float32 (Box and Muller 1958); arguments as in `bits`."""
    radius = torch.sqrt(-2.0 * torch.log(uniform(key, 2 * site + 1_000_000, shape)))
    return radius * torch.cos(2.0 * math.pi * uniform(key, 2 * site + 1_000_001, shape))


class GaussianNoise(nn.Module):
    """Standard normal noise shaped like the input; zeros in evaluation mode."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x) if self.training else torch.zeros_like(x)


class KeyedGaussianNoise(nn.Module):
    """`GaussianNoise` drawn from the buffer `key` (int32 [2])."""

    key: Tensor

    def __init__(self, site: int) -> None:
        super().__init__()
        self.site = site
        self.register_buffer("key", torch.zeros(2, dtype=torch.int32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return normal(self.key, self.site, x.shape).to(x.dtype) if self.training else torch.zeros_like(x)


class KeyedDropout(nn.Module):
    """Inverted dropout (Srivastava et al. 2014) drawn from the buffer `key` (int32 [2]).

    `rate` is a buffer too, so that the runs of a stack may differ in it.
    """

    key: Tensor
    rate: Tensor

    def __init__(self, rate: float, site: int) -> None:
        super().__init__()
        self.site = site
        self.register_buffer("key", torch.zeros(2, dtype=torch.int32), persistent=False)
        self.register_buffer("rate", torch.tensor(rate), persistent=False)

    def lowest_kept(self) -> Tensor:
        """An element whose bits are below is dropped; int32 []."""
        return (self.rate.double() * 2.0**32 - 2.0**31).to(torch.int32)

    def scale(self) -> Tensor:
        """By which what is kept is multiplied; float32 []."""
        return 1.0 / (1.0 - self.rate)

    def coin(self) -> Tensor:
        """All that a kernel needs for tossing the same coins: the two words of the hash, `lowest_kept`; int32 [3]."""
        return torch.stack([*_words(self.key, self.site), self.lowest_kept()])

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = _bits(self.key, self.site, x.shape) >= self.lowest_kept()
        return torch.where(keep, x * self.scale().to(x.dtype), 0.0)


def keyed(network: nn.Module) -> nn.Module:
    """Replace, in place, every `nn.Dropout` and `GaussianNoise` of `network` by its keyed version; sites in order.

    Dropout that can never fire (rate 0) becomes the identity. A module that is called several times in one forward pass
    draws the same each time: give each call a module of its own. Returns the same network.
    """
    site = 0
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout):
                setattr(parent, name, KeyedDropout(child.p, site) if child.p > 0 else nn.Identity())
            elif isinstance(child, GaussianNoise):
                setattr(parent, name, KeyedGaussianNoise(site))
            site += 1
    return network
