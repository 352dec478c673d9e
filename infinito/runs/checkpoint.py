"""A trained model as a folder that stands for itself: weights, config, model card and evidence."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from infinito import tasks
from infinito.escape import markdown
from infinito.runs.table import RunTable
from infinito.storage import write_json, write_text, write_weights
from infinito.study import Study
from infinito.tasks.measure import level, levels

CARD = """\
---
library_name: infinito
tags: [infinito, {tag}]
---
# {network}, init seed {init_seed}: {status}

{sentence}

| | |
|---|---|
| study | {study} |
| network | {network}, {parameters:,} parameters |
| init seed / data seed | {init_seed} / {data_seed} |
| test {metric} of these weights | {test_level:.6f} {unit} |
| its 95 % interval over {examples} test examples | {low:.6f} to {high:.6f} |
| validation {metric} | {val_level:.6f} {unit} |
{scores}| protocol registered before the confirmation runs | sha256 {protocol} |

Three claims, kept apart:

* **These weights**: {weights_claim}
* **The init seed**: {seed_claim}
* **The cell** (init seed and data seed together): {cell_claim}

`model.safetensors` holds the trained weights, `initial.safetensors` the weights before training, `config.json` what
builds the network, `evidence.json` the decision with all its figures, `confirmation/` every run behind it.

```python
import json
from safetensors.torch import load_file
from infinito.networks import build

config = json.load(open("config.json"))
network = build(config["network"], **config["settings"])
network.load_state_dict(load_file("model.safetensors"))
```
"""


def export(
    study: Study, confirmation: RunTable, best: pd.DataFrame, result: dict[str, Any], data: tasks.Data, folder: Path
) -> dict[str, Any]:
    """Write the best of the golden seed's confirmation runs as a model.

    Args:
        study: whose params say how the network is built.
        confirmation: the run table with the weights.
        best: one row of it, the run to keep.
        result: the decision of the golden stage.
        data: the task, for the network's settings.
        folder: where to write model.safetensors, initial.safetensors, config.json, evidence.json and README.md.

    Returns:
        run_id, init_seed, data_seed, val_loss, test_loss and the task's scores of the run, and test_loss_interval, an
        estimate over test examples. A loss is what is better when lower, whatever the metric.
    """
    row = best.iloc[0]
    arm, trunk = study.params.networks.candidate, study.params.networks.of("candidate").trunk
    final = {name: tensor[0] for name, tensor in confirmation.weights(best, "final").items()}
    write_weights(folder / "model.safetensors", final)
    write_weights(
        folder / "initial.safetensors",
        {name: tensor[0] for name, tensor in confirmation.weights(best, "initial").items()},
    )
    write_json(
        folder / "config.json",
        {
            "schema": "infinito/config/1",
            "network": arm.network,
            "settings": trunk | dict(data.task.given) | arm.settings,
            "task": study.params.prepare.model_dump(),
            "train": study.params.networks.of("candidate").model_dump(),
        },
    )
    facts: dict[str, Any] = {
        "run_id": str(row["run_id"]),
        "init_seed": int(row["init_seed"]),
        "data_seed": int(row["data_seed"]),
        **{name: float(row[name]) for name in ("val_loss", "test_loss", *data.task.scores)},
        "test_loss_interval": result["claims"]["checkpoint"]["test_loss"],
    }
    metric, shown = data.task.metric, levels(data.task.metric, facts["test_loss_interval"])
    titles = {name: score.title or score.name for name, score in data.task.scores.items()}
    record = confirmation.record(row["stack_id"])
    write_json(folder / "evidence.json", result | {"checkpoint": facts, "provenance": record})
    write_text(
        folder / "README.md",
        CARD.format(
            network=markdown(arm.network),
            tag=json.dumps(arm.network),  # JSON is YAML
            study=markdown(study.params.study),
            parameters=sum(tensor.numel() for tensor in final.values()),
            status=result["status"],
            weights_claim=markdown(result["claims"]["checkpoint"]["sentence"]),
            seed_claim=markdown(result["claims"]["init_seed"]["sentence"]),
            cell_claim=markdown(result["claims"]["cell"]["sentence"]),
            sentence=markdown(result["sentence"]),
            protocol=result["protocol_sha256"],
            init_seed=facts["init_seed"],
            data_seed=facts["data_seed"],
            metric=markdown(metric.name),
            unit=markdown(metric.unit),
            test_level=level(metric, facts["test_loss"]),
            val_level=level(metric, facts["val_loss"]),
            low=shown["ci_low"],
            high=shown["ci_high"],
            examples=shown["n"],
            scores="".join(
                f"| {markdown(title[0].lower() + title[1:])} | {facts[name]:.4f} |\n" for name, title in titles.items()
            ),
        ),
    )
    return facts
