"""Networks as users write them: one operation each, in the middle of the smallest network that fits a task.

Shapes: B batch, T length, D width, V vocabulary.
"""

import math
import random
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infinito.operations.noise import GaussianNoise


class User(nn.Module):
    """Token embedding, `middle`, linear head; the subclasses write `middle`, [B, T, D] -> [B, T, D]."""

    def __init__(
        self, vocabulary: int, width: int, layers: int, heads: int, length: int, causal: bool, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.head = nn.Linear(width, vocabulary)
        self.vocabulary, self.width, self.heads, self.length, self.rate = vocabulary, width, heads, length, dropout
        self.prepare()

    def prepare(self) -> None:
        """Make the layers of `middle`."""

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.middle(self.embedding(ids), ids))


# --- randomness


class ModuleDropout(User):
    def prepare(self) -> None:
        self.drop = nn.Dropout(self.rate)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.drop(x)


class ModuleNoise(User):
    def prepare(self) -> None:
        self.noise = GaussianNoise()

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + 0.1 * self.noise(x)


class FunctionalDropout(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return F.dropout(x, self.rate, self.training)


class ChannelDropout(User):
    def prepare(self) -> None:
        self.drop = nn.Dropout1d(self.rate)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.drop(x)


class AlphaDropout(User):
    def prepare(self) -> None:
        self.drop = nn.AlphaDropout(self.rate)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.drop(x)


class TwoNames(User):
    """One module, kept twice."""

    def prepare(self) -> None:
        self.drop = nn.Dropout(self.rate)
        self.other = self.drop

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.other(torch.tanh(self.drop(x)))


class OwnNoise(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x) if self.training else x


class OwnUniform(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x * (torch.rand(x.shape, device=x.device) > 0.1) if self.training else x


class InPlaceNoise(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + torch.empty(x.shape).normal_() if self.training else x


class GeneratorNoise(User):
    def prepare(self) -> None:
        self.generator = torch.Generator().manual_seed(1)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + 0.1 * torch.randn(x.shape, generator=self.generator) if self.training else x


class Permuted(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + 0.1 * x[:, torch.randperm(x.shape[1])] if self.training else x


class PythonRandom(User):
    """Skips a layer now and then."""

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x * 0.5 if self.training and random.random() < 0.5 else x


class NumpyRandom(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x * float(np.random.uniform(0.5, 1.5)) if self.training else x


class NumpyGenerator(User):
    def prepare(self) -> None:
        self.generator = np.random.default_rng(1)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x * float(self.generator.uniform(0.5, 1.5)) if self.training else x


class SharedDropout(User):
    """One module, called twice."""

    def prepare(self) -> None:
        self.drop = nn.Dropout(self.rate)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.drop(torch.tanh(self.drop(x)))


# --- past autograd


class DataWritten(User):
    """Keeps its weight on the unit sphere."""

    def prepare(self) -> None:
        self.layer = nn.Linear(self.width, self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        self.layer.weight.data.div_(self.layer.weight.data.norm(dim=1, keepdim=True))
        return self.layer(x)


class DataReplaced(DataWritten):
    """The same, by another tensor in its place."""

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        self.layer.weight.data = F.normalize(self.layer.weight.detach(), dim=1)
        return self.layer(x)


# --- control flow


class Item(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x / x.abs().max().item()


class If(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        if x.mean() > 0:
            return 2 * x
        return x


class Steps(User):
    """As many rounds as the state says."""

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        for _ in range(int(x.abs().max()) + 1):
            x = torch.tanh(x)
        return x


class Listed(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x * torch.tensor([float(len(set(row))) for row in ids.tolist()])[:, None, None]


class Where(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return torch.where(x.mean() > 0, 2 * x, x)


# --- state


class Assigned(User):
    def prepare(self) -> None:
        self.register_buffer("mean", torch.zeros(self.width))

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 1))
        return x - self.mean


class InPlaceBuffer(User):
    def prepare(self) -> None:
        self.register_buffer("mean", torch.zeros(self.width))

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.detach().mean((0, 1)))
        return x - self.mean


class BufferByIndex(User):
    def prepare(self) -> None:
        self.register_buffer("last", torch.zeros(4, self.width))

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        if self.training:
            self.last[0] = x.detach().mean((0, 1))
        return x - self.last.mean(0)


class PlainAttribute(User):
    """A state that is no buffer."""

    def prepare(self) -> None:
        self.mean = torch.zeros(self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 1))
        return x - self.mean


class InPlaceAttribute(User):
    def prepare(self) -> None:
        self.mean = torch.zeros(self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.detach().mean((0, 1)))
        return x - self.mean


class Ends(User):
    """Stops the program in the middle of a training: in its twentieth pass with gradients."""

    def prepare(self) -> None:
        self.passes = 0

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        self.passes += torch.is_grad_enabled() and self.training
        if self.passes == 20:
            sys.exit("no more")
        return x


class PythonCounter(User):
    """A number that changes at every step."""

    def prepare(self) -> None:
        self.calls = 0

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return x * (1 + 1 / (1 + self.calls))


class FilledIn(User):
    """Writes its result piece by piece."""

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        out = torch.zeros(x.shape)
        for t in range(x.shape[1]):
            out[:, t] = x[:, : t + 1].mean(1)
        return out


class FilledLike(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for t in range(x.shape[1]):
            out[:, t] = x[:, : t + 1].mean(1)
        return out


class BatchNorm(User):
    def prepare(self) -> None:
        self.norm = nn.BatchNorm1d(self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class BatchNormWithoutState(User):
    def prepare(self) -> None:
        self.norm = nn.BatchNorm1d(self.width, track_running_stats=False)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


# --- layers


class LayerNorm(User):
    def prepare(self) -> None:
        self.norm = nn.LayerNorm(self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.norm(x)


class Penalised(LayerNorm):
    """With a loss of its own."""

    def forward_with_penalty(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(ids)
        return logits, 0.1 * logits.square().mean()


class GroupNorm(User):
    def prepare(self) -> None:
        self.norm = nn.GroupNorm(2, self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class RMSNorm(User):
    def prepare(self) -> None:
        self.norm = nn.RMSNorm(self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.norm(x)


class Convolution(User):
    def prepare(self) -> None:
        self.convolution = nn.Conv1d(self.width, self.width, 3, padding=1)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return F.gelu(self.convolution(x.transpose(1, 2))).transpose(1, 2)


class Attention(User):
    """PyTorch's attention layer, with dropout on its weights."""

    rate_of_weights = True

    def prepare(self) -> None:
        rate = self.rate if self.rate_of_weights else 0.0
        self.attention = nn.MultiheadAttention(self.width, self.heads, dropout=rate, batch_first=True)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + self.attention(x, x, x, need_weights=False)[0]


class AttentionWithoutDropout(Attention):
    rate_of_weights = False


class ScaledDotProduct(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        q = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return F.scaled_dot_product_attention(q, q, q, is_causal=True).transpose(1, 2).flatten(2)


class ScaledDotProductDropout(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        q = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        rate = self.rate if self.training else 0.0
        return F.scaled_dot_product_attention(q, q, q, dropout_p=rate).transpose(1, 2).flatten(2)


class OwnAttention(User):
    """Written out, with dropout on the weights."""

    def prepare(self) -> None:
        self.three = nn.Linear(self.width, 3 * self.width)
        self.out = nn.Linear(self.width, self.width)
        self.drop = nn.Dropout(self.rate)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.three(x).chunk(3, -1))
        weights = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1)
        return x + self.out((self.drop(weights) @ v).transpose(1, 2).flatten(2))


class EncoderLayer(User):
    def prepare(self) -> None:
        self.layer = nn.TransformerEncoderLayer(self.width, self.heads, 32, self.rate, batch_first=True)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.layer(x)


class EncoderLayerWithoutDropout(User):
    def prepare(self) -> None:
        self.layer = nn.TransformerEncoderLayer(self.width, self.heads, 32, 0.0, batch_first=True)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.layer(x)


class Lstm(User):
    def prepare(self) -> None:
        self.cell = nn.LSTM(self.width, self.width, batch_first=True)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.cell(x)[0]


class Gru(User):
    def prepare(self) -> None:
        self.cell = nn.GRU(self.width, self.width, batch_first=True)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.cell(x)[0]


class GruCell(User):
    """Called once per position."""

    def prepare(self) -> None:
        self.cell = nn.GRUCell(self.width, self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        state, states = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            states.append(state)
        return torch.stack(states, 1)


class LstmCell(User):
    def prepare(self) -> None:
        self.cell = nn.LSTMCell(self.width, self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        state, states = None, []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            states.append(state[0])
        return torch.stack(states, 1)


class OwnGru(User):
    def prepare(self) -> None:
        self.of_input = nn.Linear(self.width, 3 * self.width)
        self.of_state = nn.Linear(self.width, 3 * self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        state, states = torch.zeros_like(x[:, 0]), []
        for given in self.of_input(x).unbind(1):
            a, b, c = given.chunk(3, -1)
            r, z, n = self.of_state(state).chunk(3, -1)
            update = torch.sigmoid(b + z)
            state = (1 - update) * torch.tanh(c + torch.sigmoid(a + r) * n) + update * state
            states.append(state)
        return torch.stack(states, 1)


# --- operations


class OneHot(User):
    def prepare(self) -> None:
        self.look = nn.Linear(self.vocabulary, self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + self.look(F.one_hot(ids, self.vocabulary).float())


class ComparedHot(OneHot):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + self.look((ids[..., None] == torch.arange(self.vocabulary, device=ids.device)).to(x.dtype))


class MaskIndexing(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x / x[ids != 0].mean()


class MaskAssignment(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        x = x.clone()
        x[ids == 0] = 0.0
        return x


class NonZero(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + x.flatten(0, 1)[torch.nonzero((ids == 1).flatten())[:, 0]].sum(0)


class Gathered(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + x.gather(1, (ids % x.shape[1])[..., None].expand_as(x))


class TopK(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + x.topk(2, dim=1).values.mean(1, keepdim=True)


class Sorted(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + x.sort(1).values


class CumulativeSum(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x.cumsum(1) / math.sqrt(self.length)


class Einsum(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return torch.einsum("btd,bsd->bts", x, x).softmax(-1) @ x


class PaddedEmbedding(User):
    def prepare(self) -> None:
        self.other = nn.Embedding(self.vocabulary, self.width, padding_idx=0)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + self.other(ids)


class Sinusoids(User):
    def prepare(self) -> None:
        angle = torch.arange(self.length)[:, None] / 10 ** torch.linspace(0, 4, self.width // 2)
        self.register_buffer("position", torch.cat([angle.sin(), angle.cos()], -1), persistent=False)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x + self.position[: x.shape[1]]


class Cached(User):
    """Keeps a constant from its first call on."""

    def prepare(self) -> None:
        self.mask: Tensor | None = None

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        if self.mask is None:
            self.mask = torch.ones(x.shape[1], x.shape[1]).tril() / x.shape[1]
        return self.mask.to(x.dtype) @ x


class Spectrum(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return torch.fft.fft2(x).real / math.sqrt(self.length)


class Numpy(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x * float(np.mean(x.detach().cpu().numpy()))


class NumpyIds(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x * torch.from_numpy(np.cos(ids.numpy()))[..., None].float()


class Unfolded(User):
    """An operation that fails for a reason of its own, in training only."""

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return F.fold(x, (7, 7), (2, 2)) if self.training else x


class Halved(torch.autograd.Function):
    """Gives in a stack another result than alone."""

    generate_vmap_rule = False

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int | None]:
        return x - 0.5 * x.mean(0) * (info.batch_size - 1), in_dims[0]


class Alone(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return Halved.apply(x)


class Reused(User):
    """A linear layer called twice: nothing to say against it."""

    def prepare(self) -> None:
        self.linear = nn.Linear(self.width, self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.linear(torch.tanh(self.linear(x)))


class SharedBlock(User):
    """A block with dropout under two names, and a table that both of its copies read."""

    def prepare(self) -> None:
        block = nn.Sequential(nn.Linear(self.width, self.width), nn.Dropout(self.rate), nn.LayerNorm(self.width))
        block.register_buffer("table", torch.linspace(0, 1, self.width), persistent=False)
        self.blocks = nn.ModuleList([block, block])

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x) * block.get_buffer("table")
        return x


class RateOfModule(User):
    def prepare(self) -> None:
        self.drop = nn.Dropout(self.rate)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.drop(x) * (1 - self.drop.p)


class Checkpointed(User):
    def prepare(self) -> None:
        self.linear = nn.Linear(self.width, self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        return checkpoint(lambda y: torch.tanh(self.linear(y)), x, use_reentrant=False)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class OwnGradient(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return Doubled.apply(x)


class EvaluationOnly(User):
    """Wrong in evaluation only."""

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x if self.training else x / x.max().item()


# --- what only compiling minds


class Printing(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        print("a step of", x.shape)
        return x


class Broken(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x


class Clock(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        import time

        self.seconds = time.process_time()
        return x


class FileReader(User):
    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        with open("/dev/null") as file:
            return x * (1 + len(file.read()))


# --- parameters


class Lazy(User):
    """What has no shape before the first forward pass."""

    def prepare(self) -> None:
        self.late = nn.LazyLinear(self.width)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.late(x)


class Complex(User):
    """A parameter of complex numbers."""

    def prepare(self) -> None:
        self.filter = nn.Parameter(torch.randn(self.width // 2 + 1, dtype=torch.complex64))

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x.float()) * self.filter, x.shape[-1]).to(x.dtype)


class Half(User):
    """A parameter of half precision."""

    def prepare(self) -> None:
        self.coarse = nn.Linear(self.width, self.width, dtype=torch.bfloat16)

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.coarse(x.bfloat16()).to(x.dtype)


class Spectral(User):
    """A weight that is computed anew in every pass, from a buffer that changes."""

    def prepare(self) -> None:
        self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(self.width, self.width))

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.linear(x)


class EvaluatesToNothing(User):
    """Trains well, and gives no number in evaluation."""

    def middle(self, x: Tensor, ids: Tensor) -> Tensor:
        return x if self.training else x * torch.nan
