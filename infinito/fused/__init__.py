"""What a GPU does best in one pass: operators with kernels of their own, beside the plain code that they equal."""
