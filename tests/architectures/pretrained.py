"""Networks of transformers, unchanged, by their own configuration: what one writes to train them here."""

from typing import Any

from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    MambaConfig,
    MambaModel,
)


class Wrapped(nn.Module):
    """A body of transformers, which gives states [B, T, D], and a head: logits [B, T, V]."""

    def __init__(self, body: nn.Module, vocabulary: int, width: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.body(ids).last_hidden_state)


class Gpt2(Wrapped):
    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, length: int, **_: Any) -> None:
        config = GPT2Config(
            vocab_size=vocabulary, n_embd=width, n_layer=layers, n_head=heads, n_positions=length,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
        )  # fmt: skip
        super().__init__(GPT2Model(config), vocabulary, width)


class BertOfTransformers(Wrapped):
    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, length: int, **_: Any) -> None:
        config = BertConfig(
            vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=2 * width, max_position_embeddings=length,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        super().__init__(BertModel(config, add_pooling_layer=False), vocabulary, width)


class LlamaOfTransformers(Wrapped):
    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, length: int, **_: Any) -> None:
        config = LlamaConfig(
            vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=2 * width, max_position_embeddings=length, use_cache=False, pad_token_id=None,
        )  # fmt: skip
        super().__init__(LlamaModel(config), vocabulary, width)


class MambaOfTransformers(Wrapped):
    def __init__(self, vocabulary: int, width: int, layers: int, **_: Any) -> None:
        config = MambaConfig(
            vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, state_size=4, use_cache=False,
        )  # fmt: skip
        super().__init__(MambaModel(config), vocabulary, width)
