"""The plain transformer: post-norm encoder trunk (Vaswani et al. 2017) with learned positions and a linear head.

Shapes: B batch, T length, D width, H heads, V vocabulary.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGE, ROUND = 4096, 64  # a vocabulary above LARGE is filled up to a multiple of ROUND


class Attention(nn.Module):
    """Multi-head scaled dot-product attention with biases; dropout on the weights."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """h: [B, T, D] -> (mixed [B, T, D], weights [B, H, T, T], before dropout)."""
        B, T, D = h.shape
        three = (self.q_proj, self.k_proj, self.v_proj)  # as one product, which takes little more time than one of them
        weight, bias = torch.cat([p.weight for p in three]), torch.cat([p.bias for p in three])
        q, k, v = F.linear(h, weight, bias).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(D // self.heads)
        if self.causal:
            position = torch.arange(T, device=h.device)
            scores = scores.masked_fill(position[None, :] > position[:, None], -torch.inf)
        weights = torch.softmax(scores, dim=-1)
        mixed = (self.dropout(weights) @ v).transpose(1, 2).reshape(B, T, D)
        return self.out_proj(mixed), weights


class Transformer(nn.Module):
    """The baseline: token and position embeddings, post-norm layers, linear head.

    Args:
        vocabulary, width, layers, heads, length: V, D, number of layers, H, largest T.
        causal: whether a position sees only itself and earlier ones.
        dropout: rate at the embedding, on the attention weights, and twice in the feed-forward.
    """

    def __init__(
        self, *, vocabulary: int, width: int, layers: int, heads: int, length: int, causal: bool, dropout: float
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width: {width} is not a multiple of heads ({heads})")
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.Parameter(torch.randn(1, length, width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.attention_layers = nn.ModuleList(Attention(width, heads, dropout, causal) for _ in range(layers))
        self.ff_layers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, 4 * width),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(4 * width, width),
                nn.Dropout(dropout),
            )
            for _ in range(layers)
        )
        self.layer_norms_1 = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.layer_norms_2 = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.output_projection = nn.Linear(width, vocabulary)

    def embed(self, input_ids: Tensor) -> Tensor:
        """input_ids: integer [B, T] -> [B, T, D]."""
        T = input_ids.shape[1]
        return self.dropout(self.token_embedding(input_ids) + self.position_embedding[:, :T])

    def layer(self, h: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """One post-norm layer: h [B, T, D] -> (h [B, T, D], attention weights [B, H, T, T])."""
        mixed, weights = self.attention_layers[i](h)
        h = self.layer_norms_1[i](h + mixed)
        return self.layer_norms_2[i](h + self.ff_layers[i](h)), weights

    def forward(self, input_ids: Tensor) -> Tensor:
        """input_ids: integer [B, T] -> logits [B, T, V]."""
        h = self.embed(input_ids)
        for i in range(len(self.attention_layers)):
            h, _ = self.layer(h, i)
        return self.logits(h)

    def logits(self, h: Tensor) -> Tensor:
        """h: [B, T, D] -> logits [B, T, V].

        A large vocabulary is filled up for the product, which on a GPU takes four times as long for GPT-2's 50,257
        words as for 50,304 (benchmarks/results/lm_h100.json).
        """
        head, vocabulary = self.output_projection, self.output_projection.out_features
        extra = -vocabulary % ROUND if vocabulary > LARGE else 0
        if extra == 0:
            return head(h)
        return F.linear(h, F.pad(head.weight, (0, 0, 0, extra)), F.pad(head.bias, (0, extra)))[..., :vocabulary]
