"""Clinical statistics. Arrays in, measures with intervals out; no torch, no files."""

from medtl import lazily

__all__, __getattr__, __dir__ = lazily(
    __name__,
    {
        "agreement": "bland_altman correlation_measures error_measures intraclass_correlation "
        "within",
        "calibration": "brier calibrated_error calibration_line expected_calibration_error "
        "log_loss reliability scaled_brier top_label",
        "comparison": "benjamini_hochberg fisher_exact holm mcnemar paired_auroc paired_t wilcoxon",
        "confusion": "Counts balanced_accuracy=mean_recall confusion_matrix count f1_macro "
        "hand_till kappa likelihood_ratios natural_frequencies predictive_values_at share_measures "
        "summary_measures",
        "curves.decision_curve": "at_prevalence decision_curve",
        "curves.smooth_calibration": "calibration_indices loess smooth_calibration",
        "discrimination": "average_precision partial_auc sensitivity_at_specificity "
        "specificity_at_sensitivity threshold_at_sensitivity threshold_at_specificity",
        "intervals": "bias_corrected clopper_pearson newcombe_auc newcombe_difference wilson",
        "operating_point": "choose_operating_point misses_allowed patients_for_assurance",
        "overlap": "case_overlaps casewise_measures compare_masks",
        "paired_runs": "compare_runs detectable_difference mean_of_folds_auroc mean_of_folds_mae",
        "planning.sample_size": "patients_for_auroc patients_for_c_statistic "
        "patients_for_calibration_slope patients_for_net_benefit "
        "patients_for_observed_over_expected patients_for_promise patients_for_share "
        "range_of_share with_design_effect",
        "ranking": "auroc",
        "readers.multireader": "against_readers reader_study",
        "readers.paired_shares": "noninferiority paired_share",
        "readers.rater_agreement": "reader_agreement",
        "resampling": "bootstrap_function",
        "scores": "CI Readings Scores certain_truth usable_rows",
        "subgroups": "gaps mean_gaps",
        "temperature": "fit_class_temperature fit_recalibration",
        "transfer.random_effects": "random_effects",
        "transfer.shift": "difference_between standardised_difference",
        "transfer.updating": "advise_update updating_ladder",
    },
)
