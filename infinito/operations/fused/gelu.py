"""GELU followed by dropout, which on a CPU finds its slope on the way forward.

A compiled gradient computes again what it needs of the forward pass: for GELU(x) = x P(x), P the standard normal
distribution function (Hendrycks & Gimpel 2016), that is P once more, an exponential, and the coins of the dropout. On
a CPU this was a tenth of a step. Here the forward pass computes value and slope from one exponential, tosses the coins
once, and leaves the slope for the backward pass, which multiplies by it. A GPU waits for memory and not for
arithmetic: there the plain code is faster.

The slope is a constant to autograd: a network that takes a gradient of a gradient through it calls
`torch.nn.functional.gelu` instead.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infinito.operations.noise import KeyedDropout, NoDropout

# the error function: Abramowitz & Stegun 1964, equation 7.1.26, absolute error below 1.5e-7, as torch's vectorised one
POLE = 0.3275911
COEFFICIENTS = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


def value_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """GELU(x) and its derivative P(x) + x P'(x), error below 1e-6 (1 + |value|); float32 [..] -> two of [..]."""
    # a power of 2: an exp that is used twice would be stored instead of the slope (Inductor, `mark_reuse`)
    density = torch.exp2(x * x * (-0.5 * math.log2(math.e)))
    t = 1 / (1 + POLE * math.sqrt(0.5) * x.abs())
    series = torch.full_like(t, COEFFICIENTS[0])
    for coefficient in COEFFICIENTS[1:]:
        series = series * t + coefficient
    tail = 0.5 * density * t * series  # P(-|x|)
    below = torch.where(x < 0, tail, 1 - tail)
    return x * below, below + x * density / math.sqrt(2 * math.pi)


def gelu_dropout(x: Tensor, dropout: nn.Module) -> Tensor:
    """dropout(GELU(x)).

    Args:
        x: [..].
        dropout: `KeyedDropout`, `nn.Dropout`, or the identity.
    """
    known = dropout.training and isinstance(dropout, NoDropout | nn.Identity | KeyedDropout)
    if not known or x.is_cuda or x.dtype == torch.float64 or not torch.compiler.is_compiling():
        return dropout(F.gelu(x))
    value, slope = value_and_slope(x.detach().float())
    if isinstance(dropout, KeyedDropout):
        value, slope = dropout.alike(value, slope)
    return value.to(x.dtype) + (x - x.detach()) * slope.to(x.dtype)  # the second term is 0, and has the gradient
