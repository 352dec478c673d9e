"""A training step on a GPU, launched once instead of kernel by kernel.

A step of small networks is hundreds of kernels of a few microseconds, which Python can't launch as fast as they run. A
CUDA graph holds them all. It works on fixed addresses: the step has to change its tensors in place, and to read from
a tensor which step it is.
"""

import threading
from collections.abc import Callable

import torch

PREPARING = threading.Lock()  # compiling and recording change settings of the whole process
WARM_UP = 2  # plain calls before the recording: they compile, and allocate what libraries keep


class Replay:
    """Calls `step` twice as it is, then records it as a CUDA graph, and from then on replays that."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.step = step
        self.calls = 0
        self.graph = torch.cuda.CUDAGraph()
        self.aside = torch.cuda.Stream()

    def __call__(self) -> None:
        if self.calls < WARM_UP:
            # not on the default stream, on which nothing can be recorded later
            self.aside.wait_stream(torch.cuda.current_stream())
            with PREPARING, torch.cuda.stream(self.aside):
                self.step()
            torch.cuda.current_stream().wait_stream(self.aside)
        else:
            if self.calls == WARM_UP:
                # other threads, such as those of another stack, may go on using the GPU
                with PREPARING, torch.cuda.graph(self.graph, stream=self.aside, capture_error_mode="thread_local"):
                    self.step()
            self.graph.replay()
        self.calls += 1
