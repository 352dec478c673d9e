"""Token embeddings as a matrix product: their gradient is one too, so its additions have a fixed order.

The gradient of a lookup adds the rows of equal tokens wherever they occur. On a GPU that is done by atomic additions,
whose order, and so whose last bits, differ from run to run; the ordered way is to sort the tokens first, which takes
longer than the rest of a small network's step. Multiplying by the one-hot matrix gives the same embeddings (in float32
to the bit: one factor is 1, all others are 0) and costs next to nothing while the vocabulary is small.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGEST_VOCABULARY = 256  # above it the product costs more than sorting
ALIGNED = 16  # tokens: of this the fast products of a GPU want a multiple


class ComparedEmbedding(nn.Embedding):
    """`nn.Embedding` whose options are those of a plain one."""

    def forward(self, ids: Tensor) -> Tensor:
        """ids: integer [..], 0 to V - 1 -> [.., D]; an id outside gives zeros."""
        extra = -len(self.weight) % ALIGNED if ids.is_cuda else 0  # columns of zeros
        hit = ids[..., None] == torch.arange(len(self.weight) + extra, device=ids.device)
        return F.linear(hit.to(self.weight.dtype), F.pad(self.weight, (0, 0, 0, extra)).mT)


def compared(network: nn.Module) -> nn.Module:
    """Let every plain `nn.Embedding` of a small vocabulary compare, as the object that it is. Returns the network."""
    for module in network.modules():
        if (
            type(module) is nn.Embedding
            and module.num_embeddings <= LARGEST_VOCABULARY
            and module.padding_idx is None
            and module.max_norm is None
            and not module.scale_grad_by_freq
            and not module.sparse
        ):
            module.__class__ = ComparedEmbedding
    return network
