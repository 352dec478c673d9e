"""INFINITO V5.2: the plain trunk with exploration noise, "integrated information" metrics and a guided memory.

Faithful to the published model, quirks included; parameter names are those of its checkpoints. Two of the quirks
matter to anyone who reads results: a write needs priority > threshold, but priority is at most 0.9 and the threshold
starts at 3.0, so the memory never writes; and the comparison is hard, so the threshold never gets a gradient.

Shapes: B batch, T length, D width, H heads, V vocabulary, M memory slots.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infinito.networks.transformer import Transformer
from infinito.operations.noise import GaussianNoise

FIXED_WEIGHTS = {"temporal": 0.3, "integration": 0.3, "complexity": 0.2, "attention": 0.2}
COMPONENTS = ("temporal_coherence", "integration_strength", "complexity", "attention_diversity")
TARGET_PHI = 1.2
LARGEST_PHI = 10.0


class StochasticExploration(nn.Module):
    """h + N(0, 1) x learnable scale, in training only; one scale for all layers, fresh noise in each."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.adaptive_scale = nn.Parameter(torch.tensor(0.1))
        self.noise = nn.ModuleList(GaussianNoise() for _ in range(layers))

    def forward(self, h: Tensor, layer: int) -> Tensor:
        return h + self.noise[layer](h) * self.adaptive_scale if self.training else h


class ImprovedIITMetrics(nn.Module):
    """Four quantities in [0, 1] per example, read off the final states and the attention weights.

    The four `weight_*` scalars and the two linear maps are in the published checkpoints but never used in its outputs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        for name, weight in FIXED_WEIGHTS.items():
            self.register_buffer(f"weight_{name}", torch.tensor(weight))
        self.phi_projector = nn.Linear(width, width // 2)
        self.complexity_analyzer = nn.Linear(width, 64)

    def forward(self, h: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """h: [B, T, D]; weights: [B, H, T, T], mean over layers -> each component [B]."""
        B, T, D = h.shape
        neighbours = F.cosine_similarity(h[:, 1:], h[:, :-1], dim=-1).mean(1) if T > 1 else h.new_zeros(B)
        quarter = max(T // 4, 1)
        means = [h[:, i * quarter : (i + 1) * quarter].mean(1) for i in range(4) if (i + 1) * quarter <= T]
        pairs = [
            F.cosine_similarity(means[i], means[j], dim=-1).abs()
            for i in range(len(means))
            for j in range(i + 1, len(means))
        ]
        attention = weights.mean((1, 2))  # over heads and queries: [B, T]
        entropy = -(attention * torch.log(attention + 1e-10)).sum(-1)
        return {
            "temporal_coherence": (neighbours + 1) / 2,
            "integration_strength": torch.stack(pairs).mean(0) if pairs else h.new_zeros(B),
            "complexity": torch.sigmoid(10 * h.flatten(1).var(1)),
            "attention_diversity": entropy / math.log(T) if T > 1 else h.new_zeros(B),
        }


def largest(score: Tensor, k: int) -> Tensor:
    """Places of the k largest numbers of every row: [.., M] -> int64 [.., k]."""
    # on a GPU torch.topk takes as long as the attention of a layer
    return one_after_the_other(score, k) if score.is_cuda else torch.topk(score, k, dim=-1).indices


def one_after_the_other(score: Tensor, k: int) -> Tensor:
    """As `largest`, by k passes."""
    place, found = torch.arange(score.shape[-1], device=score.device), []
    for _ in range(k):
        found.append(score.argmax(-1, keepdim=True))
        score = score.masked_fill(place == found[-1], -torch.inf)
    return torch.cat(found, -1)


class LearnablePhiWeights(nn.Module):
    """Softmax weights of the four components; they start at .3, .3, .2, .2."""

    def __init__(self) -> None:
        super().__init__()
        for name, weight in FIXED_WEIGHTS.items():
            setattr(self, f"logit_{name}", nn.Parameter(torch.tensor(math.log(weight))))

    def forward(self) -> Tensor:
        """The weights, [4], in the order of the components."""
        return torch.softmax(torch.stack([getattr(self, f"logit_{name}") for name in FIXED_WEIGHTS]), 0)


class IITGuidedMemory(nn.Module):
    """An external memory that writes where priority exceeds a threshold and reads its top 5 slots.

    The slots are buffers. In training a write replaces the buffers by new tensors, so the module stays usable under
    `torch.func.functional_call`, which hands changed buffers back. The published description leaves open which slot
    a write takes: here slots are taken in turn.
    """

    memory_keys: Tensor
    memory_values: Tensor
    phi_scores: Tensor
    attention_scores: Tensor
    access_count: Tensor
    timestamps: Tensor
    global_time: Tensor
    write_count: Tensor

    def __init__(self, width: int, slots: int, initial_threshold: float, read_slots: int = 5) -> None:
        super().__init__()
        self.slots = slots
        self.read_slots = read_slots
        self.query_proj = nn.Linear(width, width)
        self.key_proj = nn.Linear(width, width)
        self.threshold_logit = nn.Parameter(torch.tensor(math.log(initial_threshold)))
        for name in ("memory_keys", "memory_values"):
            self.register_buffer(name, torch.zeros(slots, width))
        for name in ("phi_scores", "attention_scores"):
            self.register_buffer(name, torch.zeros(slots))
        for name in ("access_count", "timestamps"):
            self.register_buffer(name, torch.zeros(slots, dtype=torch.int64))
        for name in ("global_time", "write_count"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    def priority(self, phi: Tensor) -> Tensor:
        """phi: [B] -> [B]; at most 0.9."""
        recency = torch.exp(-(self.global_time - self.write_count).float() / 100)
        return 0.8 * (phi / LARGEST_PHI).clamp(0, 1) + 0.1 * recency

    def write(self, h: Tensor, phi: Tensor) -> None:
        """Store the mean state of every example whose priority exceeds the threshold; h: [B, T, D], phi: [B]."""
        with torch.no_grad():
            content = h.mean(1)
            wanted = self.priority(phi) > torch.exp(self.threshold_logit)
            slot = (self.write_count + torch.cumsum(wanted.long(), 0) - 1) % self.slots
            # [M, B]: which example, if any, a slot takes; a sum stands for an indexed copy, which would not vectorise
            takes = ((torch.arange(self.slots, device=h.device)[:, None] == slot) & wanted).to(h.dtype)
            free = 1 - takes.sum(1).clamp(max=1)
            self.memory_keys = self.memory_keys * free[:, None] + takes @ self.key_proj(content)
            self.memory_values = self.memory_values * free[:, None] + takes @ content
            self.phi_scores = self.phi_scores * free + takes @ phi
            self.timestamps = torch.where(free > 0, self.timestamps, self.global_time)
            self.write_count = self.write_count + wanted.long().sum()
            self.global_time = self.global_time + 1

    def forward(self, h: Tensor, causal: bool = False) -> Tensor:
        """h: [B, T, D] -> mean of the slots read: [B, 1, D], from one query per example.

        The query is the mean of h over the whole sequence, as published. A causal model may not see its future, so
        there every position asks with the mean up to itself: [B, T, D].
        """
        if causal:
            seen = torch.arange(1, h.shape[1] + 1, device=h.device, dtype=h.dtype)
            pooled = h.cumsum(1) / seen[:, None]
        else:
            pooled = h.mean(1, keepdim=True)
        query = self.query_proj(pooled)
        score = 0.7 * (query @ self.memory_keys.T) / math.sqrt(h.shape[-1]) + 0.3 * self.phi_scores
        return self.memory_values[largest(score, min(self.read_slots, self.slots))].mean(-2)


class InfinitoV52(Transformer):
    """The candidate: trunk, exploration after every layer, metrics, memory, gate.

    Args:
        vocabulary, width, layers, heads, length, causal, dropout: as in `Transformer`.
        lambda_phi: weight of the delta-phi objective in the training loss (Dyck 0, WikiText-2 0.1).
        memory_slots: M.
        gate: with the learnable memory gate and its layer norm; without them what was read is simply added.
        initial_threshold: of the memory's write rule.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        layers: int,
        heads: int,
        length: int,
        causal: bool,
        dropout: float,
        lambda_phi: float = 0.0,
        memory_slots: int = 256,
        gate: bool = True,
        initial_threshold: float = 3.0,
    ) -> None:
        super().__init__(
            vocabulary=vocabulary,
            width=width,
            layers=layers,
            heads=heads,
            length=length,
            causal=causal,
            dropout=dropout,
        )
        self.causal = causal
        self.lambda_phi = lambda_phi
        self.explorer = StochasticExploration(layers)
        self.iit_metrics = ImprovedIITMetrics(width)
        self.learnable_phi_weights = LearnablePhiWeights()
        self.memory = IITGuidedMemory(width, memory_slots, initial_threshold)
        self.memory_gate = nn.Parameter(torch.tensor(-5.0)) if gate else None
        self.memory_norm = nn.LayerNorm(width) if gate else None

    def explored(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """input_ids: integer [B, T] -> (h [B, T, D], attention weights averaged over layers [B, H, T, T])."""
        h = self.embed(input_ids)
        total: Tensor | float = 0.0
        for i in range(len(self.attention_layers)):
            h, weights = self.layer(h, i, keep_weights=True)
            assert weights is not None
            h = self.explorer(h, i)
            total = total + weights
        assert isinstance(total, Tensor)
        return h, total / len(self.attention_layers)

    def measure(self, h: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """The four components and phi, each [B]; h: [B, T, D], weights: [B, H, T, T]."""
        components = self.iit_metrics(h, weights)
        stacked = torch.stack([components[name] for name in COMPONENTS], -1)
        return components | {"phi": stacked @ self.learnable_phi_weights()}

    def remember(self, h: Tensor, phi: Tensor) -> Tensor:
        """Mix what is read into h, then write where the rule allows (training only): [B, T, D] -> [B, T, D].

        Reading comes first: what a batch stores may only be seen by later batches.
        """
        read = self.memory(h, self.causal)
        if self.training:
            self.memory.write(h, phi)
        if self.memory_gate is None or self.memory_norm is None:
            return h + read
        return self.memory_norm(h + torch.sigmoid(self.memory_gate) * read)

    def hidden(self, input_ids: Tensor) -> Tensor:
        """What the head reads: input_ids, integer [B, T] -> [B, T, D]."""
        return self.remembered(input_ids)[0]

    def forward_with_penalty(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """input_ids: integer [B, T] -> (logits [B, T, V], lambda_phi x delta-phi objective, a scalar)."""
        h, penalty = self.remembered(input_ids)
        return self.logits(h), penalty

    def nats_with_penalty(self, input_ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """input_ids, targets: integer [B, T] -> (nats of every token [B, T], lambda_phi x delta-phi objective)."""
        h, penalty = self.remembered(input_ids)
        return self.nats(h, targets), penalty

    def remembered(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """input_ids: integer [B, T] -> (h after the memory [B, T, D], lambda_phi x delta-phi objective, a scalar)."""
        h, weights = self.explored(input_ids)
        measured = self.measure(h, weights)
        h = self.remember(h, measured["phi"])
        if self.lambda_phi == 0:
            return h, h.new_zeros(())
        fixed = sum(w * measured[name] for w, name in zip(FIXED_WEIGHTS.values(), COMPONENTS, strict=True))
        phi_fixed = torch.as_tensor(3 * fixed).clamp(0, LARGEST_PHI)
        objective = ((measured["phi"] - TARGET_PHI) ** 2).mean() + F.relu(phi_fixed - measured["phi"]).mean()
        return h, self.lambda_phi * objective

    @torch.no_grad()
    def integration(self, input_ids: Tensor) -> dict[str, Tensor]:
        """temporal_coherence, integration_strength, complexity, attention_diversity, phi of an input, each [B]."""
        return self.measure(*self.explored(input_ids))
