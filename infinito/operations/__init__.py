"""What a forward pass is made of beside torch: keyed noise, embeddings, fused kernels."""

from infinito.operations.noise import GaussianNoise

__all__ = ["GaussianNoise"]
