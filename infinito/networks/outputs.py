"""How many numbers a network gives for one example, by what its task calls them."""


def outputs_of(classes: int | None, labels: int | None, outputs: int | None) -> int:
    """The one that a task gives: a logit a class, a logit a label, or a value an output.

    Raises:
        ValueError: none of them, or several.
    """
    given = {"classes": classes, "labels": labels, "outputs": outputs}
    found = {name: count for name, count in given.items() if count is not None}
    if len(found) != 1:
        raise ValueError(f"found {', '.join(found) or 'no number of outputs'}; allowed: one of {', '.join(given)}")
    return next(iter(found.values()))
