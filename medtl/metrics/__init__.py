"""Clinical statistics. Arrays in, measures with intervals out; no torch, no files."""

from medtl import lazily

__all__, __getattr__, __dir__ = lazily(
    __name__,
    {
        "agreement": "bland_altman correlation_measures error_measures intraclass_correlation",
        "calibration": "brier calibration_line expected_calibration_error log_loss reliability",
        "comparison": "benjamini_hochberg compare_models holm mcnemar paired_auroc",
        "confusion": "likelihood_ratios natural_frequencies predictive_values_at share_measures "
        "summary_measures",
        "discrimination": "average_precision bootstrap_function partial_auc "
        "sensitivity_at_specificity specificity_at_sensitivity",
        "intervals": "clopper_pearson newcombe_difference wilson",
        "multiclass": "balanced_accuracy confusion_matrix f1_macro hand_till kappa",
        "net_benefit": "decision_curve",
        "operating_point": "choose_operating_point",
        "overlap": "compare_masks",
        "paired_runs": "compare_runs",
        "ranking": "auroc",
        "scores": "CI",
        "temperature": "fit_recalibration",
    },
)
