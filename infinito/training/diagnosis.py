"""Why a network can't be trained in stacks, in one line: where in its code, what is the matter, what to write instead.

Stacking (torch.func.vmap) and compiling (torch.compile) refuse what would mix up the runs, or what they can't see
through, with long tracebacks of their own. This is the table of those that networks run into.
"""

import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

OURS = Path(__file__).parents[1]
THEIRS = Path(torch.__file__).parent, Path(sysconfig.get_paths()["stdlib"]) / "copy.py"
UNCOMPILED = "INFINITO_COMPILE=0 trains uncompiled, about half as fast"
PAGE = "docs/networks.md"


@dataclass(frozen=True)
class Cause:
    """pattern: of the error's message, the functions it came through and the line of the network that it came from."""

    pattern: str
    problem: str
    advice: str


SHARED_NOISE = "draws random numbers that all runs would share"
OWN_NOISE = (
    "the modules torch.nn.Dropout (not F.dropout, not its relatives) and infinito.operations.GaussianNoise, which "
    "give every run its own"
)

# the first that fits; the special ones come before the general ones
CAUSES = (
    Cause(
        r"(?s)random operation.*multi_head_attention_forward",
        f"the dropout of nn.MultiheadAttention {SHARED_NOISE}",
        "dropout=0.0 (in nn.TransformerEncoderLayer: layer.self_attn.dropout = 0.0), or the attention written "
        f"out with nn.Dropout on its weights ({PAGE})",
    ),
    Cause(
        r"(?s)random operation.*scaled_dot_product_attention",
        f"dropout_p {SHARED_NOISE}",
        f"dropout_p=0.0, or the attention written out with nn.Dropout on its weights ({PAGE})",
    ),
    Cause(
        r"aten::(lstm|gru|rnn_)|RNN, GRU,? or LSTM|mkldnn_rnn|torch/nn/(modules|utils)/rnn\.py",
        "nn.LSTM, nn.LSTMCell, nn.GRU and nn.RNN can't be stacked",
        f"the recurrence written out with nn.Linear ({PAGE})",
    ),
    Cause(r"random operation|rrelu", SHARED_NOISE, OWN_NOISE),
    Cause(
        r"Sparse(CPU|CUDA)",
        "makes sparse gradients, which have no place in a row",
        "sparse=False",
    ),
    Cause(
        r"embedding_renorm|(?s:Output \d+ of View is a view.*\bembedding\b)",
        "writes in place into a parameter, as nn.Embedding(max_norm=...) does",
        "the norm where the rows are used: x / x.norm(dim=-1, keepdim=True).clamp(min=max_norm) * max_norm",
    ),
    Cause(
        r"Output \d+ of View is a view",
        "writes in place into a parameter, here or in a hook of what is called here",
        "a new tensor where it is used, as F.normalize(weight, dim=1) for weight.div_(norm)",
    ),
    Cause(
        r"accessing `data` under vmap|directly with `\.data`",
        "reads or writes a parameter past autograd, by .data, here or in a hook of what is called here",
        "a new tensor where it is used, as F.normalize(weight, dim=1) for weight.data.div_(norm)",
    ),
    Cause(
        r"aten::\w+\.out\b|aten::_?linalg_\w+\.out|out= or view ops",
        "writes into a tensor by out=, as torch.nn.utils.spectral_norm and parametrizations.spectral_norm do",
        "operations that give a new tensor; torch.nn.utils.parametrizations.weight_norm for a norm of the weights",
    ),
    Cause(
        r"(?s)data-dependent.*\bone_hot\(",
        "F.one_hot looks at the values, of which every run has its own",
        "(ids[..., None] == torch.arange(n, device=ids.device)).float()",
    ),
    Cause(
        r"calling \.item\(\)|[Dd]ata-dependent",
        "makes a Python number or a condition of a tensor, of which every run has its own",
        "torch.where(condition, a, b) for if; tensors for .item(), int(), float(), bool()",
    ),
    Cause(
        r"dynamic shape",
        "picks elements by a condition, so that every run would have a tensor of another size",
        "torch.where(mask, x, 0.0) for x[mask], and a mean as the sum over it divided by mask.sum()",
    ),
    Cause(
        r"Cannot access storage",
        "keeps a tensor that forward made in an attribute",
        "self.register_buffer(name, tensor) in the constructor, with persistent=False for a constant",
    ),
    Cause(
        r"Cannot access data pointer|can't convert .* to numpy",
        "takes the numbers out of torch (numpy, a list)",
        "operations of torch only",
    ),
    Cause(
        r"mutate a captured Tensor|inplace arithmetic|vmap: .*in-?place",
        "writes in place into a tensor that all runs share",
        "torch.stack(parts, 1) or x.new_zeros(shape) for torch.zeros(shape); "
        "self.name = new for a buffer (self.register_buffer)",
    ),
    Cause(
        r"saved tensor hooks|tag_activation_checkpoint",
        "torch.utils.checkpoint and other hooks on saved tensors can't be stacked",
        "the plain call; a smaller train.stack saves memory too",
    ),
    Cause(
        r"setup_context|generate_vmap_rule",
        "a torch.autograd.Function can't be stacked as it is",
        "one with a static setup_context and generate_vmap_rule = True",
    ),
    Cause(
        r"graph leaves",
        "keeps a tensor that has a gradient in an attribute, as torch.nn.utils.weight_norm and spectral_norm do",
        "torch.nn.utils.parametrizations.weight_norm",
    ),
)
NOT_COMPILED = (
    "keep print, files, clocks and objects other than tensors, numbers and modules out of forward; " + UNCOMPILED
)


def place(frames: Iterable[traceback.FrameSummary]) -> tuple[str, str]:
    """The innermost line that is neither torch's nor the engine's, as file:line and as text; empty where there is none.

    A network of infinito itself counts as a user's.
    """
    found = "", ""
    for frame in frames:
        file = Path(frame.filename)
        if frame.filename.startswith("<") or any(file.is_relative_to(theirs) for theirs in THEIRS):
            continue
        if file.is_relative_to(OURS) and not file.is_relative_to(OURS / "networks"):
            continue
        found = f"{_short(file)}:{frame.lineno}", (frame.line or "").strip()
    return found


def _short(file: Path) -> Path:
    """As seen from the current folder, or else from where Python found it."""
    for folder in (Path.cwd(), *map(Path, sys.path)):
        if file.is_relative_to(folder):
            return file.relative_to(folder)
    return file


def _passed(frame: traceback.FrameSummary) -> str:
    """A function that the error came through; one of torch with its file."""
    file = Path(frame.filename)
    if not file.is_relative_to(THEIRS[0]):
        return frame.name
    return f"torch/{file.relative_to(THEIRS[0]).as_posix()} {frame.name}"


def diagnosis(network: str, error: Exception) -> str:
    """One line about an error that stopped the stacked or compiled step of a network.

    Args:
        network: its name.
        error: as caught around the step.
    """
    compiler = isinstance(error, torch._dynamo.exc.TorchDynamoException)
    frames = list(getattr(error, "real_stack", None) or traceback.extract_tb(error.__traceback__))
    where, line = place(frames)
    message = re.split(r"\n\s*from user code", str(error))[0]
    text = "\n".join((message, *map(_passed, frames), line))
    at = f"network: {network!r}: " + (f"{where}: `{line[:100]}`: " if where else "")
    for cause in CAUSES:
        if re.search(cause.pattern, text):
            return f"{at}{cause.problem}; instead: {cause.advice}"
    if compiler:
        explained = re.search(r"Explanation: (.*?)(?:\n\s*(?:Hint|Developer|\n)|$)", message, re.DOTALL)
        reason = " ".join((explained[1] if explained else message).split())[:200].rstrip(". ")
        return f"{at}can't be compiled: {reason}; {NOT_COMPILED}"
    operation = re.search(r"aten::\w+", message)
    reason = " ".join(message.split())[:200].rstrip(". ")
    if operation:
        return f"{at}{operation[0]} can't be stacked: {reason}; write it with other operations ({PAGE})"
    return f"{at}fails when runs are trained together: {type(error).__name__}: {reason}; what works: {PAGE}"
