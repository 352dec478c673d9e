"""Whether a metric is better when it is higher or lower, by its name; where that does not say it, it is asked for."""

import re
from typing import Literal

Direction = Literal["higher", "lower"]
LOWER = set(
    "loss losses error errors err rmse mse mae mape smape nll perplexity ppl bpb bpc bits wer cer ter fid kl logloss "
    "crossentropy entropy xent ce brier ece time duration seconds latency regret distance mpjpe epe misclassification "
    "deviance fehler verlust dauer zeit flops memory".split()
)
HIGHER = set(
    "acc accuracy accuracies auc auroc roc aucroc auprc "
    "ap map f1 fscore precision recall sensitivity specificity reward "
    "rewards return returns score scores bleu rouge meteor chrf exactmatch "
    "em ndcg mrr hit hits iou miou dice psnr ssim "
    "r2 mcc kappa top1 top5 success wins winrate elo genauigkeit trefferquote treffer correct passrate pass "
    "throughput likelihood elbo correlation spearman pearson".split()
)
NEGATED = {"neg", "negative", "minus", "inverse"}


def direction(metric: str) -> Direction | None:
    """Which way it is better; None if the name says nothing, or both."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", metric)
    words = [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
    joined = {a + b for a, b in zip(words, words[1:], strict=False)}
    known = {*words, *joined}
    if "log" in known and "likelihood" in known or "loglikelihood" in known:
        found: Direction = "higher"
    elif "win" in known and "loss" in known:
        return None
    elif "error" in known or "loss" in known or "logloss" in known:
        found = "lower"
    else:
        lower, higher = known & LOWER, known & HIGHER
        if bool(lower) == bool(higher):
            return None
        found = "lower" if lower else "higher"
    if words[0] in NEGATED:  # neg_mean_squared_error; f1_negative is the F1 of a class
        return "lower" if found == "higher" else "higher"
    return None if NEGATED & known else found
