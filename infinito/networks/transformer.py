"""The plain transformer: post-norm encoder trunk (Vaswani et al. 2017) with learned positions and a linear head.

Shapes: B batch, T length, D width, H heads, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infinito.operations.fused import operator
from infinito.operations.fused.attention import attend
from infinito.operations.fused.cross_entropy import fused_token_nats
from infinito.operations.fused.gelu import gelu_dropout
from infinito.tasks.tokens import token_nats

LARGE = 4096  # words of a vocabulary, above which the logits are by far the largest tensor


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

    def forward(self, h: Tensor, keep_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """h: [B, T, D] -> (mixed [B, T, D], weights before dropout [B, H, T, T], or None if they are not wanted)."""
        three = (self.q_proj, self.k_proj, self.v_proj)  # as one product, which takes little more time than one of them
        weight, bias = torch.cat([p.weight for p in three]), torch.cat([p.bias for p in three])
        mixed, weights = attend(F.linear(h, weight, bias), self.heads, self.causal, self.dropout, keep_weights)
        return self.out_proj(mixed), weights


def feed_forward(block: nn.Module, h: Tensor) -> Tensor:
    """block(h); GELU and the dropout behind it in one pass, where they are the second and the third of a sequence."""
    modules = list(block) if isinstance(block, nn.Sequential) else []
    activation = modules[1] if len(modules) > 2 else None
    if type(activation) is not nn.GELU or activation.approximate != "none":
        return block(h)
    h = gelu_dropout(modules[0](h), modules[2])
    for module in modules[3:]:
        h = module(h)
    return h


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

    def layer(self, h: Tensor, i: int, keep_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """One post-norm layer: h [B, T, D] -> (h [B, T, D], attention weights [B, H, T, T] or None)."""
        mixed, weights = self.attention_layers[i](h, keep_weights)
        h = self.layer_norms_1[i](h + mixed)
        return self.layer_norms_2[i](h + feed_forward(self.ff_layers[i], h)), weights

    def hidden(self, input_ids: Tensor) -> Tensor:
        """What the head reads: input_ids, integer [B, T] -> [B, T, D]."""
        h = self.embed(input_ids)
        for i in range(len(self.attention_layers)):
            h, _ = self.layer(h, i)
        return h

    def forward(self, input_ids: Tensor) -> Tensor:
        """input_ids: integer [B, T] -> logits [B, T, V]."""
        return self.logits(self.hidden(input_ids))

    def nats_with_penalty(self, input_ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """input_ids, targets: integer [B, T] -> (cross-entropy of every token in nats [B, T], 0)."""
        nats = self.nats(self.hidden(input_ids), targets)
        return nats, nats.new_zeros(())

    def products(self, h: Tensor) -> Tensor:
        """Logits without the bias: h [B, T, D] -> [B, T, W], the vocabulary filled up with zeros.

        On a GPU the product takes four times as long for GPT-2's 50,257 words as for 50,304
        (benchmarks/results/lm_h100.json).
        """
        V = self.output_projection.out_features
        return F.linear(h, F.pad(self.output_projection.weight, (0, 0, 0, -V % (64 if V > LARGE else 16))))

    def logits(self, h: Tensor) -> Tensor:
        """h: [B, T, D] -> logits [B, T, V]."""
        head = self.output_projection
        if not h.is_cuda or head.bias is None:
            return head(h)
        return self.products(h)[..., : head.out_features] + head.bias

    def nats(self, h: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of every token: h [B, T, D], targets [B, T] -> [B, T]."""
        head = self.output_projection
        fits = head.out_features > LARGE and head.bias is not None and h.dtype != torch.float64
        if h.is_cuda and operator.HAS_KERNELS and fits:
            return fused_token_nats(self.products(h), head.bias, targets)
        return token_nats(self.logits(h), targets)
