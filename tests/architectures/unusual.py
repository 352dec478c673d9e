"""Networks over tokens whose parameters, state, randomness or outputs are unusual; shapes as in language.py."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.architectures.language import Block, Model

# --- parameters


class LazyLayers(Model):
    """Layers that learn how wide their input is when they first see one."""

    def make(self) -> None:
        self.layer, self.norm = nn.LazyLinear(self.width), nn.LazyBatchNorm1d()
        self.head = nn.LazyLinear(self.vocabulary)

    def middle(self, x: Tensor) -> Tensor:
        return x + F.relu(self.norm(self.layer(x).transpose(1, 2)).transpose(1, 2))


class Fno(Model):
    """Fourier neural operator: a complex matrix for each of the low frequencies (Li et al., 2021)."""

    def make(self) -> None:
        drawn = torch.randn(self.length // 2 + 1, self.width, self.width, dtype=torch.complex64)
        self.filter = nn.Parameter(drawn / self.width)
        self.local = nn.Linear(self.width, self.width)

    def middle(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        low = torch.fft.rfft(x, dim=1)
        mixed = torch.einsum("bkd,kde->bke", low, self.filter[: low.shape[1]].to(low.dtype))
        return x + F.gelu(self.local(x) + torch.fft.irfft(mixed, length, dim=1))


class S4d(Model):
    """Diagonal state spaces with complex poles, as one long convolution (Gu et al., 2022)."""

    def make(self) -> None:
        states = 4
        poles = torch.complex(torch.full((states,), -0.5), torch.pi * torch.arange(states))
        self.poles = nn.Parameter(poles.repeat(self.width, 1))
        self.c = nn.Parameter(torch.randn(self.width, states, dtype=torch.complex64))
        self.log_step = nn.Parameter(torch.rand(self.width) - 3)
        self.out = nn.Linear(self.width, self.width)

    def middle(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        turns = self.poles * self.log_step.exp()[:, None]
        weights = self.c * (turns.exp() - 1) / self.poles
        powers = torch.exp(turns[..., None] * torch.arange(length, device=x.device))
        kernel = 2 * torch.einsum("ds,dst->dt", weights, powers).real
        seen = torch.fft.rfft(x.transpose(1, 2), 2 * length) * torch.fft.rfft(kernel, 2 * length)
        return x + self.out(F.gelu(torch.fft.irfft(seen, 2 * length)[..., :length].transpose(1, 2)))


class HalfEmbedding(Model):
    """A table kept in bfloat16, and cast where it is used."""

    def make(self) -> None:
        self.embedding = nn.Embedding(self.vocabulary, self.width, dtype=torch.bfloat16)
        self.layer = nn.Linear(self.width, self.width)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids).to(self.head.weight.dtype)
        return self.head(x + torch.tanh(self.layer(x)))


class DoubleScale(Model):
    """One parameter of double precision among those of single, and cast where it is used."""

    def make(self) -> None:
        self.scale, self.layer = nn.Parameter(torch.ones(self.width).double()), nn.Linear(self.width, self.width)

    def middle(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(x * self.scale.to(x.dtype)))


class RandomFeatures(Model):
    """All but the head is drawn and left as it is (Rahimi and Recht, 2007)."""

    def make(self) -> None:
        self.features = nn.Sequential(nn.Linear(self.width, 4 * self.width), nn.ReLU()).requires_grad_(False)
        self.embedding.requires_grad_(False)
        self.head = nn.Linear(4 * self.width, self.vocabulary)

    def middle(self, x: Tensor) -> Tensor:
        return self.features(x.cumsum(1) / x.shape[1])


class HalfFrozen(Model):
    """Every other layer is left as it was drawn."""

    def make(self) -> None:
        self.stack = nn.Sequential(*[nn.Sequential(nn.Linear(self.width, self.width), nn.Tanh()) for _ in range(4)])
        self.stack[::2].requires_grad_(False)

    def middle(self, x: Tensor) -> Tensor:
        return x + self.stack(x)


class OldWeightNormed(Model):
    """As language.WeightNormed, by the hook of old that computes the weight before every call."""

    def make(self) -> None:
        self.layer = nn.utils.weight_norm(nn.Linear(self.width, self.width))

    def middle(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(x))


class OldSpectralNormed(Model):
    """As language.SpectralNormed, by the hook of old."""

    def make(self) -> None:
        self.layer = nn.utils.spectral_norm(nn.Linear(self.width, self.width))

    def middle(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(x))


# --- options of embeddings


class PaddedEmbedding(Model):
    """The row of the padding is zero and stays so."""

    def make(self) -> None:
        self.embedding = nn.Embedding(self.vocabulary, self.width, padding_idx=0)
        self.layer = nn.Linear(self.width, self.width)

    def middle(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(x.cumsum(1)))


class ShortEmbedding(Model):
    """No row is longer than one: what is looked up is shortened in place."""

    def make(self) -> None:
        self.embedding = nn.Embedding(self.vocabulary, self.width, max_norm=1.0)


class FrequencyScaled(Model):
    """The gradient of a row is divided by how often the batch has it."""

    def make(self) -> None:
        self.embedding = nn.Embedding(self.vocabulary, self.width, scale_grad_by_freq=True)


class SparseEmbedding(Model):
    """The gradient has the rows that were looked up, and no others."""

    def make(self) -> None:
        self.embedding = nn.Embedding(self.vocabulary, self.width, sparse=True)


class Bigrams(Model):
    """The mean of the rows of a token and the one before it, as fastText has it (Joulin et al., 2017)."""

    def make(self) -> None:
        self.bag = nn.EmbeddingBag(self.vocabulary, self.width, mode="mean")

    def forward(self, ids: Tensor) -> Tensor:
        pairs = torch.stack([F.pad(ids, (1, 0))[:, :-1], ids], -1)
        return self.head(self.embedding(ids) + self.bag(pairs.flatten(0, 1)).unflatten(0, ids.shape))


class FrozenEmbedding(Model):
    """A table from elsewhere, which is not trained."""

    def make(self) -> None:
        self.embedding = nn.Embedding.from_pretrained(torch.randn(self.vocabulary, self.width))
        self.layer = nn.Linear(self.width, self.width)

    def middle(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(x))


class ScaledEmbedding(Model):
    """Scaled by what the table knows of itself, as the annotated Transformer does (Rush, 2018)."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids) * self.embedding.embedding_dim**0.5 / self.embedding.num_embeddings)


# --- hooks


class DeepSupervision(Model):
    """Hooks keep what the layers give; the same forward pass reads it (Lee et al., 2015)."""

    def make(self) -> None:
        self.stack = nn.Sequential(*[nn.Sequential(nn.Linear(self.width, self.width), nn.Tanh()) for _ in range(3)])
        self.seen: dict[int, Tensor] = {}
        for number, layer in enumerate(self.stack):
            layer.register_forward_hook(self.keeper(number))

    def keeper(self, number: int) -> Any:
        def keep(module: nn.Module, given: Any, out: Tensor) -> None:
            self.seen[number] = out

        return keep

    def forward_with_penalty(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(ids)
        early = torch.stack([self.head(self.seen[number]) for number in range(2)])
        return logits, 0.1 * F.mse_loss(early, logits.detach().expand_as(early))

    def middle(self, x: Tensor) -> Tensor:
        return x + self.stack(x) + self.seen[0]


class FeatureExtractor(Model):
    """A hook hangs what a layer gave on the network, and forward goes on from there."""

    def make(self) -> None:
        self.body = nn.Sequential(nn.Linear(self.width, self.width), nn.ReLU(), nn.Linear(self.width, self.width))
        self.body[1].register_forward_hook(self.keep)

    def keep(self, module: nn.Module, given: Any, out: Tensor) -> None:
        self.features = out

    def middle(self, x: Tensor) -> Tensor:
        self.body(x)
        return x + self.features


class Renormalised(Model):
    """Before every call a hook makes the rows of the weight as long as one, in place (Salimans and Kingma, 2016)."""

    def make(self) -> None:
        self.layer = nn.Linear(self.width, self.width)
        self.layer.register_forward_pre_hook(self.normalise)

    @staticmethod
    def normalise(module: nn.Module, given: Any) -> None:
        weight: Any = module.weight
        with torch.no_grad():
            weight.div_(weight.norm(dim=1, keepdim=True))

    def middle(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(x))


class NormalisedByHook(Model):
    """Before every call a hook computes the weight from a parameter of another name."""

    def make(self) -> None:
        self.layer = nn.Linear(self.width, self.width)
        self.layer.raw = nn.Parameter(self.layer.weight.detach())
        del self.layer.weight
        self.layer.register_forward_pre_hook(self.normalise)

    @staticmethod
    def normalise(module: nn.Module, given: Any) -> None:
        raw: Any = module.raw
        module.weight = F.normalize(raw, dim=1)

    def middle(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(x))


# --- randomness


class GptOfFunctions(Model):
    """Dropout by F.dropout, in every block and on the embeddings, as many a GPT has it."""

    def make(self) -> None:
        self.rate = 0.1
        self.positions = nn.Embedding(self.length, self.width)
        self.blocks = nn.ModuleList(Block(self.width, self.heads, self.causal) for _ in range(self.layers))
        self.norm = nn.LayerNorm(self.width)
        self.head.weight = self.embedding.weight

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.rate, self.training)

    def middle(self, x: Tensor) -> Tensor:
        x = self.drop(x + self.positions(torch.arange(x.shape[1], device=x.device)))
        for block in self.blocks:
            x = x + self.drop(block.attention(block.one(x)))
            x = x + self.drop(block.feedforward(block.two(x)))
        return self.norm(x)


class AlbertWithDropout(Model):
    """One block for all layers, with a dropout in it that tosses new coins at every call (Lan et al., 2020)."""

    def make(self) -> None:
        block = nn.Sequential(
            nn.LayerNorm(self.width), nn.Linear(self.width, 4 * self.width), nn.GELU(), nn.Dropout(0.1),
            nn.Linear(4 * self.width, self.width), nn.Dropout(0.1),
        )  # fmt: skip
        self.blocks = nn.ModuleList([block] * 3)

    def middle(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


class MonteCarloDropout(Model):
    """Dropout in evaluation too (Gal and Ghahramani, 2016)."""

    def middle(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.1, training=True)


class Noisy(Model):
    """Noise on the activations, in training and evaluation."""

    def middle(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn(x.shape, device=x.device)


class GumbelSoftmax(Model):
    """One of four vectors, drawn in a way that has a gradient (Jang et al., 2017)."""

    def make(self) -> None:
        self.choose, self.vectors = nn.Linear(self.width, 4), nn.Linear(4, self.width, bias=False)

    def middle(self, x: Tensor) -> Tensor:
        return x + self.vectors(F.gumbel_softmax(self.choose(x), hard=True))


class BernoulliDepth(Model):
    """A layer left out at random, an example at a time (Huang et al., 2016)."""

    def make(self) -> None:
        self.layer = nn.Linear(self.width, self.width)

    def middle(self, x: Tensor) -> Tensor:
        if not self.training:
            return x + torch.tanh(self.layer(x))
        kept = torch.bernoulli(torch.full((len(x), 1, 1), 0.8, device=x.device)) / 0.8
        return x + kept * torch.tanh(self.layer(x))


class RandomSlopes(Model):
    """A negative slope drawn for every number (Xu et al., 2015)."""

    def make(self) -> None:
        self.layer, self.slopes = nn.Linear(self.width, self.width), nn.RReLU()

    def middle(self, x: Tensor) -> Tensor:
        return x + self.slopes(self.layer(x))


class SparselyConnected(Model):
    """Which inputs a layer sees is drawn by random, and what it begins with by numpy: both in the constructor."""

    def make(self) -> None:
        self.layer = nn.Linear(self.width, self.width)
        self.register_buffer("seen", torch.zeros(self.width))
        seen: Any = self.seen
        seen[random.sample(range(self.width), self.width // 2)] = 1.0
        drawn = np.random.standard_normal((self.width, self.width)) * 0.1
        self.layer.weight.data = torch.from_numpy(drawn.astype(np.float32))

    def middle(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(x * self.seen))


# --- outputs


class LogProbabilities(Model):
    """Gives what is already normalised: normalised again it is the same."""

    def forward(self, ids: Tensor) -> Tensor:
        return F.log_softmax(super().forward(ids), -1)


class HalfLogits(Model):
    """Gives logits of half precision."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids).half()


class PaddedVocabulary(Model):
    """One more column than there are tokens, as vocabularies that are filled up have it."""

    def make(self) -> None:
        self.head = nn.Linear(self.width, self.vocabulary + 1)
