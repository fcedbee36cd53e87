"""Losses, each a frozen value that is called: `Focal(gamma=3.0)(outputs, targets)` is a scalar.

A loss is a frozen dataclass. Its fields are the options that a recipe may state, with their ranges;
`name` is its word in a recipe; calling it compares raw outputs (logits; no activation) with targets
and returns the mean over what is known. Two kinds of facts belong to a study and not to a loss, and
are said in the call: `weight` of the classes (`CrossEntropy`, `Focal`) and `values` of the classes
(the losses in `ordinal`, which also have a `head`: what their outputs stand for).

Any other callable of (outputs, targets) that returns a scalar may stand in the place of a loss.

torch is imported when a loss is called: a recipe knows its losses without it.
"""

from medtl import lazily

__all__, __getattr__, __dir__ = lazily(
    __name__,
    {
        "auc": "PairwiseLogistic",
        "cross_entropy": "CrossEntropy Focal",
        "ordinal": "Coral Corn DistancePenalisedCrossEntropy ExpectedValue LabelDistribution "
        "MeanVariance",
        "quantity": "Huber L1 MeanSquaredError",
        "segmentation": "Dice DiceCrossEntropy DiceFocal FocalTversky GeneralisedDice SquaredDice "
        "Tversky",
    },
)
