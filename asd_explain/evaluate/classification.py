"""How well pictures are classified: one class each, or any number of attributes."""

from __future__ import annotations

import numpy as np

from asd_explain.evaluate.detection import average_precision


def class_scores(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """{"accuracy": share of pictures whose largest logit is that of their class}, in [0, 1], higher is better.

    Args:
        logits: (N, C).
        targets: (N,) numbers of classes.
    """
    return {"accuracy": float((logits.argmax(1) == targets).mean())}


def attribute_scores(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Scores of attributes, each in [0, 1], higher is better; an attribute is said to be there where its logit is > 0.

    ``accuracy`` is the mean over all attributes, as published for CelebA. It flatters: an attribute that nobody has
    counts as won. ``balanced_accuracy`` (mean of the shares of both kinds that are told right; 0.5 says nothing) and
    ``mean_ap`` (average precision; the share of positives says nothing) are means over those attributes of which the
    pictures show both kinds, ``attributes_with_both`` in number; NaN where there are none.

    Args:
        logits: (N, A).
        targets: (N, A) of 0 and 1.
    """
    said, true = logits > 0, targets > 0.5
    both = np.flatnonzero(true.any(0) & ~true.all(0))
    balanced, precision = [], []
    for a in both:
        right = said[:, a] == true[:, a]
        balanced.append((right[true[:, a]].mean() + right[~true[:, a]].mean()) / 2)
        precision.append(average_precision(logits[:, a], true[:, a].astype(np.int8)))
    return {
        "accuracy": float((said == true).mean()),
        "balanced_accuracy": float(np.mean(balanced)) if len(both) else float("nan"),
        "mean_ap": float(np.mean(precision)) if len(both) else float("nan"),
        "attributes_with_both": len(both),
    }
