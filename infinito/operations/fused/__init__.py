"""What is best done in one pass, beside the plain code that it equals: by kernels on a GPU, and GELU on a CPU."""
