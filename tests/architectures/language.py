"""Networks over tokens, as people write them: what a paper names, in the fewest lines that keep its particulars.

Shapes: B batch, T length, D width, V vocabulary, H heads. All take ids [B, T] and give logits [B, T, V].
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Model(nn.Module):
    """What the constructors share."""

    def __init__(
        self, vocabulary: int, width: int, layers: int, heads: int, length: int, causal: bool, dropout: float
    ) -> None:
        super().__init__()
        self.vocabulary, self.width, self.heads, self.length, self.causal = vocabulary, width, heads, length, causal
        self.layers, self.rate = layers, dropout
        self.embedding = nn.Embedding(vocabulary, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.make()

    def make(self) -> None:
        """Make the layers of `middle`."""

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.middle(self.embedding(ids)))


class SelfAttention(nn.Module):
    """One fused projection of queries, keys and values, as GPT-2 has it; `bias` [H, T, T] is added to the scores."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = (z.unflatten(-1, (self.heads, -1)).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        if bias is not None and self.causal:
            bias = bias + torch.full_like(bias, -torch.inf).triu(1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=self.causal and bias is None)
        return self.out(y.transpose(1, 2).flatten(2))


class Feedforward(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))


class Block(nn.Module):
    """Pre-norm, as GPT-2; post-norm, as BERT."""

    def __init__(self, width: int, heads: int, causal: bool, post: bool = False) -> None:
        super().__init__()
        self.attention, self.feedforward = SelfAttention(width, heads, causal), Feedforward(width)
        self.one, self.two, self.post = nn.LayerNorm(width), nn.LayerNorm(width), post

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.post:
            x = self.one(x + self.attention(x, bias))
            return self.two(x + self.feedforward(x))
        x = x + self.attention(self.one(x), bias)
        return x + self.feedforward(self.two(x))


class Gpt(Model):
    """Learned positions, tied head, residual projections drawn smaller with depth (Radford et al., 2019)."""

    def make(self) -> None:
        self.positions = nn.Embedding(self.length, self.width)
        self.blocks = nn.ModuleList(Block(self.width, self.heads, self.causal) for _ in range(self.layers))
        self.norm = nn.LayerNorm(self.width)
        self.head.weight = self.embedding.weight
        for block in self.blocks:
            nn.init.normal_(block.attention.out.weight, std=0.02 / math.sqrt(2 * self.layers))

    def middle(self, x: Tensor) -> Tensor:
        x = x + self.positions(torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Bert(Model):
    """Post-norm, embeddings normalised, a transform before the tied head (Devlin et al., 2019)."""

    def make(self) -> None:
        self.positions = nn.Parameter(torch.randn(self.length, self.width) * 0.02)
        self.blocks = nn.Sequential(*[Block(self.width, self.heads, self.causal, post=True) for _ in range(2)])
        self.norm = nn.LayerNorm(self.width)
        self.transform = nn.Sequential(nn.Linear(self.width, self.width), nn.GELU(), nn.LayerNorm(self.width))
        self.head.weight = self.embedding.weight

    def middle(self, x: Tensor) -> Tensor:
        return self.transform(self.blocks(self.norm(x + self.positions[: x.shape[1]])))


class Rotary(nn.Module):
    """One module that all layers share, its tables in buffers that are not saved (Su et al., 2021)."""

    def __init__(self, size: int, length: int) -> None:
        super().__init__()
        turns = torch.outer(torch.arange(length).float(), 10000.0 ** (-torch.arange(0, size, 2).float() / size))
        self.register_buffer("cos", turns.cos().repeat(1, 2), persistent=False)
        self.register_buffer("sin", turns.sin().repeat(1, 2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        tables: Any = self
        return x * tables.cos[: x.shape[-2]] + torch.cat([-b, a], -1) * tables.sin[: x.shape[-2]]


class LlamaBlock(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool, rotary: Rotary) -> None:
        super().__init__()
        self.heads, self.causal, self.rotary = heads, causal, rotary
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, width // heads, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, 3 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(3 * width, width, bias=False)
        self.one, self.two = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        q = self.rotary(self.q(y).unflatten(-1, (self.heads, -1)).transpose(1, 2))
        k, v = (z.unsqueeze(1).expand(-1, self.heads, -1, -1) for z in (self.rotary(self.k(y)), self.v(y)))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.two(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(Model):
    """RMSNorm, SwiGLU, one key and value for all heads, one rotary module for all layers (Touvron et al., 2023)."""

    def make(self) -> None:
        rotary = Rotary(self.width // self.heads, self.length)
        self.blocks = nn.Sequential(*[LlamaBlock(self.width, self.heads, self.causal, rotary) for _ in range(2)])
        self.norm = nn.RMSNorm(self.width)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(x))


class T5(Model):
    """A learned bias for each bucket of distances, shared by all layers (Raffel et al., 2020)."""

    def make(self) -> None:
        self.bias = nn.Embedding(8, self.heads)
        self.blocks = nn.ModuleList(Block(self.width, self.heads, self.causal) for _ in range(2))

    def middle(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1], device=x.device)
        distance = (places[:, None] - places[None, :]).abs()
        far = 4 + (torch.log(distance.clamp(min=4) / 4) / math.log(4) * 4).long()
        bias = self.bias(torch.where(distance < 4, distance, far.clamp(max=7))).permute(2, 0, 1)
        for block in self.blocks:
            x = block(x, bias)
        return x


class Alibi(Model):
    """A fixed slope a head instead of positions (Press et al., 2022)."""

    def make(self) -> None:
        self.block = Block(self.width, self.heads, self.causal)
        self.register_buffer("slopes", 2.0 ** -torch.arange(1, self.heads + 1))

    def middle(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1], device=x.device)
        slopes: Any = self.slopes
        return self.block(x, -slopes[:, None, None] * (places[:, None] - places[None, :]).abs())


class Albert(Model):
    """A small embedding, projected up, and one block for all layers (Lan et al., 2020)."""

    def make(self) -> None:
        self.embedding = nn.Embedding(self.vocabulary, 4)
        self.up = nn.Linear(4, self.width)
        self.blocks = nn.ModuleList([Block(self.width, self.heads, self.causal, post=True)] * 3)

    def middle(self, x: Tensor) -> Tensor:
        x = self.up(x)
        for block in self.blocks:
            x = block(x)
        return x


class Universal(Model):
    """One block, again and again, each round with an embedding of its own (Dehghani et al., 2019)."""

    def make(self) -> None:
        self.block, self.rounds = Block(self.width, self.heads, self.causal), nn.Embedding(3, self.width)

    def middle(self, x: Tensor) -> Tensor:
        for turn in self.rounds.weight:
            x = self.block(x + turn)
        return x


class Mixture(Model):
    """Every token by the best two of four experts, which run on what they are sent (Shazeer et al., 2017)."""

    def make(self) -> None:
        self.router = nn.Linear(self.width, 4)
        self.experts = nn.ModuleList(Feedforward(self.width) for _ in range(4))

    def middle(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        weights, chosen = self.router(flat).softmax(-1).topk(2)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            out.index_add_(0, token, weights[token, place, None] * expert(flat[token]))
        return x + out.view_as(x)


class DenseMixture(Mixture):
    """The same with every expert on every token: as fixed shapes want it."""

    def middle(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2)
        gates = torch.zeros_like(self.router(x)).scatter(-1, chosen, weights)
        return x + torch.stack([gates[..., n, None] * expert(x) for n, expert in enumerate(self.experts)]).sum(0)


class Mamba(Model):
    """Selective state spaces, the scan written as a loop over positions (Gu and Dao, 2023)."""

    def make(self) -> None:
        self.state = 4
        self.project = nn.Linear(self.width, 2 * self.width, bias=False)
        self.convolution = nn.Conv1d(self.width, self.width, 4, padding=3, groups=self.width)
        self.select = nn.Linear(self.width, 2 * self.state + 1, bias=False)
        self.step = nn.Linear(1, self.width)
        self.log_a = nn.Parameter(torch.arange(1.0, self.state + 1).log().repeat(self.width, 1))
        self.d = nn.Parameter(torch.ones(self.width))
        self.out = nn.Linear(self.width, self.width, bias=False)

    def middle(self, x: Tensor) -> Tensor:
        y, gate = self.project(x).chunk(2, -1)
        y = F.silu(self.convolution(y.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        raw, b, c = self.select(y).split([1, self.state, self.state], -1)
        step = F.softplus(self.step(raw))
        decay = torch.exp(step[..., None] * -torch.exp(self.log_a))
        written = (step * y)[..., None] * b[..., None, :]
        state, seen = torch.zeros_like(decay[:, 0]), []
        for t in range(x.shape[1]):
            state = decay[:, t] * state + written[:, t]
            seen.append((state * c[:, t, None]).sum(-1))
        return x + self.out((torch.stack(seen, 1) + self.d * y) * F.silu(gate))


class Rwkv(Model):
    """Time mixing by the last token and a decaying sum of keys and values (Peng et al., 2023)."""

    def make(self) -> None:
        self.mix = nn.Parameter(torch.full((3, self.width), 0.5))
        self.k, self.v, self.r, self.o = (nn.Linear(self.width, self.width, bias=False) for _ in range(4))
        self.decay, self.first = nn.Parameter(torch.zeros(self.width)), nn.Parameter(torch.zeros(self.width))
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))

    def middle(self, x: Tensor) -> Tensor:
        last = self.shift(x)
        k, v, r = (layer(x * m + last * (1 - m)) for layer, m in zip((self.k, self.v, self.r), self.mix, strict=True))
        top, bottom, out = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), []
        for t in range(x.shape[1]):
            now = torch.exp(k[:, t] + self.first)
            out.append((top + now * v[:, t]) / (bottom + now + 1e-6))
            kept, new = torch.exp(-torch.exp(self.decay)), torch.exp(k[:, t])
            top, bottom = kept * top + new * v[:, t], kept * bottom + new
        return x + self.o(torch.sigmoid(r) * torch.stack(out, 1))


class LinearAttention(Model):
    """Kernel features and a running sum instead of softmax (Katharopoulos et al., 2020)."""

    def make(self) -> None:
        self.q, self.k, self.v = (nn.Linear(self.width, self.width) for _ in range(3))

    def middle(self, x: Tensor) -> Tensor:
        q, k, v = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1, self.v(x)
        sums = torch.einsum("btd,bte->btde", k, v).cumsum(1)
        return x + torch.einsum("btd,btde->bte", q, sums) / (q * k.cumsum(1)).sum(-1, keepdim=True)


class Fnet(Model):
    """The Fourier transform mixes the tokens (Lee-Thorp et al., 2022)."""

    def make(self) -> None:
        self.norm, self.feedforward = nn.LayerNorm(self.width), Feedforward(self.width)

    def middle(self, x: Tensor) -> Tensor:
        return x + self.feedforward(self.norm(x + torch.fft.fft2(x).real))


class WaveNet(Model):
    """Causal dilated convolutions with gates (van den Oord et al., 2016)."""

    def make(self) -> None:
        self.layers_of = nn.ModuleList(nn.Conv1d(self.width, 2 * self.width, 2, dilation=2**n) for n in range(3))

    def middle(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2)
        for number, layer in enumerate(self.layers_of):
            y = y + F.glu(layer(F.pad(y, (2**number, 0))), 1)
        return y.transpose(1, 2)


class Gmlp(Model):
    """Gates that are a linear map over positions (Liu et al., 2021)."""

    def make(self) -> None:
        self.into, self.out = nn.Linear(self.width, 2 * self.width), nn.Linear(self.width, self.width)
        self.norm = nn.LayerNorm(self.width)
        self.spatial = nn.Parameter(torch.randn(self.length, self.length) * 0.01)

    def middle(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.into(x)).chunk(2, -1)
        t = x.shape[1]
        return x + self.out(u * (1 + self.spatial[:t, :t].tril() @ self.norm(v)))


class PackedLstm(Model):
    """Two directions over sequences that are packed by their lengths."""

    def make(self) -> None:
        self.lstm = nn.LSTM(self.width, self.width // 2, batch_first=True, bidirectional=True)

    def forward(self, ids: Tensor) -> Tensor:
        lengths = (ids != 0).sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=ids.shape[1])
        return self.head(y)


class StackedGru(Model):
    """Two layers of nn.GRU with dropout between them."""

    def make(self) -> None:
        self.gru = nn.GRU(self.width, self.width, num_layers=2, dropout=self.rate, batch_first=True)

    def middle(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]


class WeightNormed(Model):
    """Direction and length of every row apart (Salimans and Kingma, 2016)."""

    def make(self) -> None:
        self.layer = weight_norm(nn.Linear(self.width, self.width))

    def middle(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(x))


class SpectralNormed(Model):
    """Divided by the largest singular value, of which a buffer remembers the vectors (Miyato et al., 2018)."""

    def make(self) -> None:
        self.layer = spectral_norm(nn.Linear(self.width, self.width))

    def middle(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(x))


class Lora(Model):
    """A frozen matrix and a trained product of two thin ones (Hu et al., 2022)."""

    def make(self) -> None:
        self.frozen = nn.Linear(self.width, self.width).requires_grad_(False)
        self.a, self.b = nn.Linear(self.width, 2, bias=False), nn.Linear(2, self.width, bias=False)
        nn.init.zeros_(self.b.weight)

    def middle(self, x: Tensor) -> Tensor:
        return x + self.frozen(x) + 2.0 * self.b(self.a(x))


class Codebook(Model):
    """The nearest entry of a codebook; the gradient goes straight through (van den Oord et al., 2017)."""

    def make(self) -> None:
        self.codes = nn.Parameter(torch.randn(6, self.width))

    def forward_with_penalty(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(ids)
        nearest = self.codes[((x[..., None, :] - self.codes) ** 2).sum(-1).argmin(-1)]
        penalty = F.mse_loss(nearest, x.detach()) + 0.25 * F.mse_loss(x, nearest.detach())
        return self.head(x + (nearest - x).detach()), penalty

    def forward(self, ids: Tensor) -> Tensor:
        return self.forward_with_penalty(ids)[0]


class Hooked(Model):
    """One hook changes what a layer is given, another what it gives."""

    def make(self) -> None:
        self.layer = nn.Linear(self.width, self.width)
        self.layer.register_forward_hook(lambda module, given, out: torch.tanh(out))
        self.layer.register_forward_pre_hook(lambda module, given: (given[0] * 2,))

    def middle(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


class EarlyExit(Model):
    """Another layer only while the tokens are unsure: control flow that depends on data."""

    def make(self) -> None:
        self.layer = nn.Linear(self.width, self.width)

    def middle(self, x: Tensor) -> Tensor:
        for _ in range(3):
            if x.var() > 4.0:
                break
            x = x + torch.tanh(self.layer(x))
        return x
