"""Keyed counter-based noise: a draw depends on nothing but its key, its site and its element index.

The generator is a stateless integer hash (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the two
multipliers are those of the bias-tested 32-bit finaliser of Wellons' hash prospector), written in plain tensor
arithmetic. So the noise of a run is the same alone or in a stack, in any lane, eager or compiled, on CPU or GPU, and
nothing global is touched.

A network stays an ordinary module: it uses `torch.nn.Dropout` and, for Gaussian noise, `GaussianNoise` below. `keyed`
turns both into versions that draw from the `key` buffer which the engine hands in at every step.
"""

import math
from collections.abc import Iterable

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


FIRST_OF_CALL, SECOND_OF_CALL = 0x27D4EB2F, 0x165667B1  # odd, so that no two calls have the same words


class Site(nn.Module):
    """A place in a network that draws, by the buffer `key` (int32 [2]); every call of a forward pass draws its own.

    `restart` says where a forward pass begins.
    """

    key: Tensor
    site: int
    calls: int

    def place(self, site: int) -> None:
        """Make it the place of this number."""
        self.site, self.calls = site, 0
        self.register_buffer("key", torch.zeros(2, dtype=torch.int32), persistent=False)

    def key_of_call(self) -> Tensor:
        """The key of the next call; int32 [2]."""
        call, self.calls = self.calls, self.calls + 1
        if not call:
            return self.key
        return torch.stack([self.key[0] ^ _signed(call * FIRST_OF_CALL), self.key[1] ^ _signed(call * SECOND_OF_CALL)])


class KeyedGaussianNoise(Site, GaussianNoise):
    """`GaussianNoise` drawn from the key."""

    def __init__(self, site: int) -> None:
        super().__init__()
        self.place(site)

    def forward(self, x: Tensor) -> Tensor:
        return normal(self.key_of_call(), self.site, x.shape).to(x.dtype) if self.training else torch.zeros_like(x)


class KeyedDropout(Site, nn.Dropout):
    """Inverted dropout (Srivastava et al. 2014) drawn from the key.

    `rate` is a buffer too, so that the runs of a stack may differ in it; `p` is the rate that it was made with.
    """

    rate: Tensor

    def __init__(self, rate: float, site: int) -> None:
        super().__init__(p=rate)
        self.place(site)

    def place(self, site: int) -> None:
        super().place(site)
        self.register_buffer("rate", torch.tensor(self.p), persistent=False)

    def lowest_kept(self) -> Tensor:
        """An element whose bits are below is dropped; int32 []."""
        return (self.rate.double() * 2.0**32 - 2.0**31).to(torch.int32)

    def scale(self) -> Tensor:
        """By which what is kept is multiplied; float32 []."""
        return 1.0 / (1.0 - self.rate)

    def coin(self) -> Tensor:
        """All that a kernel needs for tossing the coins of a call: two words of the hash, `lowest_kept`; int32 [3]."""
        return torch.stack([*_words(self.key_of_call(), self.site), self.lowest_kept()])

    def alike(self, *values: Tensor) -> list[Tensor]:
        """Several tensors of one shape, by the same coins: one call."""
        if not self.training:
            return list(values)
        keep = _bits(self.key_of_call(), self.site, values[0].shape) >= self.lowest_kept()
        return [torch.where(keep, x * self.scale().to(x.dtype), 0.0) for x in values]

    def forward(self, x: Tensor) -> Tensor:
        return self.alike(x)[0]


class NoDropout(nn.Dropout):
    """Dropout that never fires, because its rate is 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def keyed(network: nn.Module) -> nn.Module:
    """Let every `nn.Dropout` and `GaussianNoise` of `network` draw by its key; sites in order. Returns the network.

    A module stays the object that it is, with its attributes and hooks, under all its names: only its class is another.

    Raises:
        ValueError: dropout of all elements.
    """
    site, known = 0, set()
    for parent in list(network.modules()):
        for _, child in list(parent.named_children()):
            if id(child) not in known:
                known.add(id(child))
                _draw_by_key(child, site)
            site += 1
    return network


def _draw_by_key(module: nn.Module, site: int) -> None:
    if type(module) is nn.Dropout:
        if module.p >= 1:
            raise ValueError(f"nn.Dropout: found p = {module.p:g}; allowed: below 1, else nothing is left")
        module.__class__ = KeyedDropout if module.p > 0 else NoDropout
    elif type(module) is GaussianNoise:
        module.__class__ = KeyedGaussianNoise
    if isinstance(module, Site):
        module.place(site)


def sites(network: nn.Module) -> dict[str, Site]:
    """All places of a network that draw, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Site)}


def restart(places: Iterable[Site]) -> None:
    """A forward pass begins: the next call of every place is its first."""
    for place in places:
        place.calls = 0
