"""What people get wrong in a params.yaml: said in one line with what was meant, or put right and said once."""

import difflib
import functools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from infinito.yaml_reader import SCIENTIFIC, Scientific

P = TypeVar("P", bound=BaseModel)
logger = logging.getLogger(__name__)

MEMBERS = {
    "prepare": ("task", "dyck, text, arrays, command, or package.module:Task"),
    "optimiser": ("name", "adamw, sgd, muon"),
}
ALIKE = 0.75  # from here on a key is taken for a slip of the pen

# What goes by other names elsewhere: the key, or where such a thing belongs.
MEANT = {
    name: key
    for key, names in {
        "study": "name experiment experiment_name project",
        "prepare.source": "dataset data data_path data_dir path file files folder url train_file",
        "prepare.length": "seq_len sequence_length max_length block_size context context_length max_seq_len",
        "prepare.vocabulary": "vocab_size vocab n_vocab",
        "prepare.validation": "val valid dev val_size validation_size val_split validation_split",
        "prepare.test": "test_size test_split holdout",
        "prepare.pool": "train_size n_train",
        "prepare.targets": "target label labels y target_column",
        "prepare.inputs": "features x columns feature_columns input_columns",
        "prepare.standardise": "normalise normalize standardize normalization standardization scaling",
        "train.seed": "random_seed random_state manual_seed rng",
        "train.candidate": "treatment challenger ours proposed",
        "train.baseline": "control reference",
        "train.ablations": "ablation variants extra_arms",
        "train.candidate.network or train.baseline.network": "model models arms architecture arch net networks network",
        "train.trunk.width": "width hidden hidden_size hidden_dim d_model dim n_embd embed_dim channels",
        "train.trunk.layers": "layers n_layers num_layers n_layer num_hidden_layers depth blocks",
        "train.trunk.heads": "heads n_heads num_heads n_head num_attention_heads nhead",
        "train.trunk.dropout": "dropout p_drop drop drop_rate dropout_rate",
        "train.steps": "epochs n_epochs num_epochs max_epochs max_steps num_steps n_steps iterations iters",
        "train.batch": "batch_size bs minibatch train_batch_size gradient_accumulation accumulate_grad_batches",
        "train.optimiser": "optimizer optim opt",
        "train.optimiser.name": "adam adamw sgd muon",
        "train.optimiser.betas": "beta1 beta2",
        "train.optimiser.epsilon": "eps",
        "train.learning_rate": "lr base_lr max_lr step_size eta",
        "train.warmup": "warmup_steps warm_up num_warmup_steps warmup_ratio",
        "train.schedule": "scheduler lr_scheduler lr_schedule lr_decay annealing",
        "train.weight_decay": "wd l2 decay regularisation regularization",
        "train.clip_norm": "grad_clip clip gradient_clipping max_grad_norm clip_grad_norm clip_grad gradient_clip_val",
        "train.label_smoothing": "smoothing",
        "train.pairs": "seeds n_seeds num_seeds n_runs num_runs runs repeats repetitions replicates n trials",
        "train.precision": "amp fp16 bf16 bfloat16 mixed_precision dtype half",
        "train.curve_every": "eval_every eval_interval log_every val_check_interval eval_steps",
        "compare.alpha": "significance significance_level p_value confidence level threshold",
        "compare.smallest_effect": "effect min_effect minimal_effect effect_size mde sesoi equivalence_margin",
        "ensemble.sizes": "members n_members num_members ensemble_size",
        "report.title": "headline question",
    }.items()
    for name in names.split()
}
ELSEWHERE = {
    name: where
    for where, names in {
        "every run trains all its steps; train.keep: best takes the weights that are best on validation": (
            "early_stopping early_stop patience save_best restore_best_weights best checkpointing"
        ),
        "compare.metrics is a list with test_loss first, then further scores that the task has; a score of one's own "
        "comes with a task of one's own (docs/tasks.md)": (
            "metric f1 accuracy acc auc auroc bleu rouge exact exact_match perplexity mse mae rmse r2 score scores "
            "eval_metric monitor"
        ),
        "the task says what the loss of an example is (docs/tasks.md)": "loss criterion objective loss_fn",
        "a network augments its own inputs (docs/networks.md)": "augmentation augment data_augmentation transforms",
        "a GPU is used where there is one, and CUDA_VISIBLE_DEVICES says which": (
            "device gpu gpus cuda accelerator num_gpus"
        ),
        "INFINITO_WORKERS says how many processes train": "workers num_workers n_jobs processes threads",
        "a network is compiled where that works, unless INFINITO_COMPILE=0": "compile torch_compile",
    }.items()
    for name in names.split()
}
ARM = re.compile(r"(train\.(?:candidate|baseline|ablations\.[^.]+))(\.train)?")


def validated(file: Path, model: type[P], content: Any, inside: str = "") -> P:
    """`content` as a `model`.

    Args:
        file: a params.yaml, for messages.
        inside: what stands before every key, where only a part of the file is looked at.

    Raises:
        ValueError: all that is wrong with it, in one line.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError(_explain(file, model, content, error, inside)) from error


def put_right(model: type[BaseModel], content: Any) -> Any:
    """`content` with text that is a number in scientific notation as a number where `model` wants one, and as text
    where it wants text; all else, wrong or not, as it is."""
    try:
        model.model_validate(content)
    except ValidationError as error:
        return functools.reduce(_put_right, error.errors(), content)
    return content


def said(file: Path, content: Any) -> Any:
    """The same with ordinary numbers; those that YAML takes for text are named, each once in a process."""
    for key, number in _scientific(content):
        _say(file, key, number.text, _plain(number))
    return _plain(content)


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    return (
        int(content) if isinstance(content, Whole) else float(content) if isinstance(content, Scientific) else content
    )


class Whole(int):
    """A whole number that is written as 1e3."""

    text: str


def _put_right(content: Any, error: Any) -> Any:
    """`content` with one value as the type that its place wants."""
    value, kind = error["input"], error["type"]
    text = value.text if isinstance(value, Scientific) else value
    if not (isinstance(text, str) and SCIENTIFIC.match(text)):
        return content
    right: Any = value
    if kind == "string_type":
        right = text
    elif kind.startswith("float_") or kind.startswith("int_") and float(text).is_integer():
        right = Whole(float(text)) if kind.startswith("int_") else Scientific(text)
        right.text = text
    return _replaced(content, error["loc"], value, right)


def _replaced(content: Any, place: Sequence[Any], value: Any, right: Any) -> Any:
    """A copy with another value at a place, in which the names of a union's members may stand, which are no keys."""
    if content is value or not place:
        return right if content is value else content
    first, rest = place[0], place[1:]
    if isinstance(content, Mapping) and first in content:
        return {**content, first: _replaced(content[first], rest, value, right)}
    if isinstance(content, list) and isinstance(first, int) and first < len(content):
        return [_replaced(entry, rest, value, right) if i == first else entry for i, entry in enumerate(content)]
    return _replaced(content, rest, value, right)


def _scientific(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All numbers that YAML takes for text, by their dotted keys."""
    entries = (
        content.items() if isinstance(content, Mapping) else enumerate(content) if isinstance(content, list) else ()
    )
    for name, value in entries:
        yield from _scientific(value, f"{key}.{name}" if key else str(name))
    if isinstance(content, Scientific | Whole):
        yield key, content


@functools.cache
def _say(file: Path, key: str, text: str, number: float) -> None:
    logger.warning("%s: %s: %s is taken as the number %r, not as text", file, key, text, number)


def _explain(file: Path, model: type[BaseModel], content: Any, error: ValidationError, inside: str) -> str:
    """All problems of a params.yaml in one line; pydantic's wording, with our key names and what was found."""
    problems: dict[tuple[str, str], str] = {}  # of a key and what was found there
    for e in error.errors():
        key = inside + ".".join(_keys_on_the_way(content, e["loc"], missing=e["type"] == "missing"))
        if e["type"] == "extra_forbidden":
            problems[key, ""] = f"{key}: unknown key; {meant(key, _siblings(model, e['loc']), _keys(model, inside))}"
        elif e["type"] == "missing":
            problems[key, ""] = f"{key}: missing key"
        elif e["type"] in ("union_tag_invalid", "union_tag_not_found", "model_attributes_type"):
            problems[key, ""] = _unknown_member(key, e.get("input"))
        else:
            found = e.get("input")
            hint = " (text)" if isinstance(found, str) and e["type"].startswith(("float", "int")) else ""
            message = f"{e['msg'][0].lower()}{e['msg'][1:]}"
            what = f", found {found!r}{hint}"
            before = problems.get((key, repr(found)))
            if before:  # another member of a union
                before, _, what = before.rpartition(", found ")
                message = f"{before} or {message.removeprefix('input should be ')}"
                problems[key, repr(found)] = f"{message}, found {what}"
            else:
                problems[key, repr(found)] = f"{key}: {message}{what}"
    return f"{file}: " + "; ".join(problems.values())


def _keys_on_the_way(content: Any, place: Sequence[Any], *, missing: bool) -> Iterator[str]:
    """What of the place of an error stands in the file, but for what is missing there.

    The name of a union's member (prepare.dyck, optimiser.sgd, list[int], a kind of JSON) does not.
    """
    for part in place:
        if isinstance(content, Mapping) and part in content or isinstance(content, list) and isinstance(part, int):
            yield str(part)
            content = content[part]
    if missing:
        yield str(place[-1])


def _unknown_member(key: str, found: Any) -> str:
    """A section that says by one of its keys which kind it is, and says nothing known."""
    name, allowed = MEMBERS.get(key.rsplit(".", 1)[-1], ("", ""))
    if not name:  # a section of one kind
        return f"{key}: found {found!r}; allowed: a mapping"
    if not isinstance(found, dict):
        return f"{key}: found {found!r}; allowed: a mapping with {name}: {allowed}"
    if name not in found:
        return f"{key}.{name}: missing key; allowed: {allowed}"
    return f"{key}.{name}: found {found[name]!r}; allowed: {allowed}"


def meant(key: str, allowed: Sequence[str], everywhere: Iterable[str] = ()) -> str:
    """What somebody may have meant by an unknown key.

    Args:
        key: dotted.
        allowed: names of the keys that may stand in its place.
        everywhere: all dotted keys of the file.
    """
    section, _, name = key.rpartition(".")
    word = re.sub(r"\W", "_", name.lower())
    if word in ELSEWHERE:
        return ELSEWHERE[word]
    alike = difflib.get_close_matches(word, allowed, 1, ALIKE)
    of_that_name = [
        home for home in dict.fromkeys(everywhere) if home.rpartition(".")[0] != section and home.split(".")[-1] == word
    ]
    home = MEANT.get(word) or (f"{section}.{alike[0]}".lstrip(".") if alike else " or ".join(of_that_name[:3]))
    arm = ARM.fullmatch(section)
    if arm and home.startswith("train.") and " or " not in home and not home.startswith(section):
        return f"did you mean {arm[1]}.{home}, of this arm's own recipe?"
    if home:
        return f"did you mean {home}?"
    of_network = f"; a setting of the network is {arm[1]}.settings.{name}" if arm else ""
    return f"allowed: {', '.join(allowed)}{of_network}"


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a key may hold: itself, or those of its unions and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _siblings(model: type[BaseModel], place: Sequence[Any]) -> list[str]:
    """Names of the keys that may stand where pydantic found an unknown one."""
    sections = [model]
    for part in place[:-1]:
        below = [field for section in sections if (field := section.model_fields.get(part))]
        if below:
            sections = [section for field in below for section in _sections(field.annotation)]
        else:  # the name of a union's member, or of an ablation
            sections = [section for section in sections if section.__name__.lower() == part] or sections
    return list(dict.fromkeys(name for section in sections for name in section.model_fields))


def _keys(model: type[BaseModel], inside: str) -> Iterator[str]:
    """All dotted keys of a section."""
    for name, field in model.model_fields.items():
        yield f"{inside}{name}"
        if get_origin(field.annotation) is not dict:  # whose keys have names of the user's own
            for section in _sections(field.annotation):
                yield from _keys(section, f"{inside}{name}.")


def one_line(error: Exception) -> str:
    """What an error says, cut to a line."""
    return " ".join(str(error).split())[:300]
