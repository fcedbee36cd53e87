"""Every English sentence of the report, in one place, so that another language is one more table.

Values in `{braces}` are escaped when a text is filled in (`fill`); the texts themselves may hold
markup. A key that is missing raises, so a template cannot show a hole.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from markupsafe import Markup

EN: Mapping[str, str] = MappingProxyType(
    {
        # page frame
        "page.kicker": "Evaluation report",
        "page.not_device": "Research use only. Not a medical device.",
        "page.skip": "Skip to the summary",
        "page.contents": "Contents",
        "page.made_by": (
            "Made by medtl from <code>metrics.json</code>. This file is complete in itself: it"
            " loads nothing from a network and sends nothing."
        ),
        "page.synthetic": (
            "Synthetic images. This report shows what the software does; it says nothing about"
            " patients."
        ),
        "missing": "Not available: {what}",
        "not_stated": "Not stated",
        "not_estimable": "not estimable: {reason}",
        "no_reason": "no reason was recorded",
        "degenerate": "interval says nothing: {reason}",
        "undefined.short": "not estimable",
        "interval": "{low} to {high}",
        "data_table": "Numbers of this figure",
        # summary
        "nav.summary": "Summary",
        "summary.question": "The question",
        "summary.no_question": "The study states no question.",
        "summary.found": "Of 100 {unit} with {finding}, <strong>{n}</strong> are found.",
        "summary.false": "Of 100 {unit} without it, <strong>{n}</strong> are wrongly flagged.",
        "summary.right": "Of 100 flags, <strong>{n}</strong> are right.",
        "summary.no_right": "How many flags are right is not estimable: {reason}.",
        "summary.at_prevalence": "at the prevalence this study states",
        "summary.detail": "{level}% interval {low} to {high}",
        "summary.counted": "{count} of {total} in the test set",
        "summary.no_found": "How many {unit} with {finding} are found is not estimable: {reason}.",
        "summary.no_false": "How many {unit} are wrongly flagged is not estimable: {reason}.",
        "summary.no_point": (
            "No threshold was fixed for {finding} before the test set was opened, so this report"
            " makes no statement about patients found or missed."
        ),
        "summary.optimistic": (
            "The threshold was chosen on the test set: these figures are optimistic."
        ),
        "summary.flag_nobody": (
            "The threshold fixed for {finding} flags nobody: no score on validation met the rule."
        ),
        "summary.several": "One network, {n} findings. Each has its own threshold.",
        "summary.mae": "The estimate is off by <strong>{n}</strong> on average.",
        "summary.within_12": "Of 100 estimates, <strong>{n}</strong> are within 12 months.",
        "summary.dice": "Outline and reference overlap with a mean Dice of <strong>{n}</strong>.",
        "summary.hd95": "Outlines lie within <strong>{n}</strong> of each other (HD95, mean).",
        "summary.interval": "{level}% interval {interval}",
        "summary.tested": "{total} cases in the test set",
        "summary.nothing": "metrics.json holds no measure of the test set.",
        "fact.test_set": "Test set",
        "fact.threshold": "Threshold",
        "fact.auroc": "AUROC",
        "fact.prevalence": "Prevalence assumed",
        "fact.prevalence_missing": "not stated",
        "fact.positives": "{n} with the finding",
        "fact.patients": "{n} patients",
        "fact.images": "{n} images",
        "fact.cases": "{n} cases",
        "threshold.val": "fixed on validation before the test set was opened",
        "threshold.given": "stated by the user, not chosen on these data",
        "threshold.test": (
            "chosen on the test set itself: every figure that uses it is optimistic"
        ),
        "threshold.other": "chosen on {split}",
        "threshold.rule": "rule: {rule}",
        "threshold.from": "from {n} cases, {n_positive} with the finding",
        "threshold.inf": "above every score",
        "overview.title": "All findings at a glance",
        "overview.finding": "Finding",
        "overview.positives": "With / tested",
        "overview.auroc": "AUROC",
        "overview.found": "Found, of 100 with it",
        "overview.false": "Wrongly flagged, of 100 without it",
        "overview.no_point": "no threshold was fixed",
        "overview.macro": "Average over the findings",
        # per 1000
        "thousand.title": "What it would mean for 1000 patients",
        "thousand.stated": (
            "If {positive} of 1000 patients have {finding} (the prevalence this study states,"
            " {prevalence})"
        ),
        "thousand.test set": (
            "If {positive} of 1000 patients have {finding} (the prevalence in the test set,"
            " {prevalence}; the study states none, and yours may differ)"
        ),
        "thousand.found": "found",
        "thousand.missed": "missed",
        "thousand.false": "wrongly flagged",
        "thousand.cleared": "rightly not flagged",
        "thousand.flagged": (
            "Of the {flagged} patients who would be flagged, {found} have {finding}."
        ),
        "thousand.flagged_none": "Nobody would be flagged.",
        "thousand.alt": (
            "1000 patients: {tp} with {finding} found, {fn} missed, {fp} wrongly flagged,"
            " {tn} rightly not flagged."
        ),
        "thousand.no_prevalence": (
            "The study states no prevalence. How many of 1000 patients would be flagged depends on"
            " it; set <code>study.prevalence</code> in the recipe, or try one below."
        ),
        "thousand.range": "{low} to {high}",
        # use and limits on page one
        "use.title": "Intended use",
        "use.none": "Not stated. A result without an intended use must not be used.",
        "use.out_of_scope": "Not for",
        "rely.title": "Do not rely on this for",
        "rely.more": "All limits",
        # one finding
        "op.title": "Operating point",
        "op.title_unsound": "Threshold (not an operating point)",
        "op.lead": "The network flags an image when its score is at least the threshold.",
        "op.frozen": "Frozen threshold {threshold}",
        "op.unsound": "Threshold {threshold}",
        "op.slider": "Threshold for {finding}",
        "op.slider_help": "Arrow keys or mouse. Left finds more, right flags fewer.",
        "op.valuetext": (
            "threshold {threshold}: {found} of 100 found, {false} of 100 wrongly flagged"
        ),
        "op.reset": "Back to the frozen threshold",
        "op.exploratory": (
            "Exploratory. This threshold was picked by looking at test results: do not report it."
        ),
        "op.at_frozen": "This is the frozen threshold, the one the report stands for.",
        "op.sentence": (
            "At threshold {threshold}: of 100 {unit} with {finding}, {found} are found and {missed}"
            " missed; of 100 without it, {false} are wrongly flagged."
        ),
        "op.table": "What the network said, test set",
        "op.flagged": "Flagged",
        "op.not_flagged": "Not flagged",
        "op.with": "With {finding}",
        "op.without": "Without",
        "op.total": "Total",
        "op.tp": "found",
        "op.fn": "missed",
        "op.fp": "wrongly flagged",
        "op.tn": "rightly not flagged",
        "op.measure": "Measure",
        "op.value": "Value",
        "op.no_interval": "interval at the frozen threshold only",
        "op.prevalence": "Prevalence where you work",
        "op.thousand": (
            "Of 1000 patients: {tp} found, {fn} missed, {fp} wrongly flagged, {tn} rightly not"
            " flagged. A flag would be right in {ppv}, no flag in {npv}."
        ),
        "op.thousand_ask": "Enter a prevalence to see 1000 patients.",
        "op.other": "The same at other thresholds (exploratory)",
        "op.no_table": "the counts at other thresholds (curve “threshold_table” in metrics.json)",
        "op.no_counts": "the counts at the frozen threshold (“counts” in metrics.json)",
        "op.needs_script": "The slider needs JavaScript; the table below says the same.",
        "op.transfer": "The frozen threshold on validation and on test",
        "disc.title": "Discrimination",
        "cal.title": "Calibration and usefulness",
        "cal.lead": (
            "Can a score of 30% be read as “3 in 10”? And does acting on it do more good than harm?"
        ),
        "sub.title": "Subgroups",
        "sub.lead": (
            "Hollow marks in grey have fewer than 30 cases or fewer"
            " than 10 with the finding: too few to compare. A gap that is not significant is no"
            " proof of fairness."
        ),
        "sub.missing": (
            "subgroup measures. Name the columns to report by in <code>data.strata</code>"
        ),
        "sub.subgroup": "Subgroup",
        "sub.n": "n (with finding)",
        "sub.unknown": "unknown",
        "sub.gaps": "Gaps between groups",
        "sub.gap": "Gap",
        "sub.gap_value": "Difference (interval)",
        "sub.p": "p",
        "sub.p_holm": "p, corrected for all comparisons (Holm)",
        "sub.against": "Method",
        # figures
        "fig.roc": "ROC curve",
        "fig.roc.desc": (
            "Share of {finding} found against share wrongly flagged, for every threshold."
            " The diamond is the frozen threshold."
        ),
        "fig.roc.x": "Wrongly flagged (1 − specificity)",
        "fig.roc.y": "Found (sensitivity)",
        "fig.chance": "chance",
        "fig.frozen": "frozen",
        "fig.pr": "Precision and recall",
        "fig.pr.desc": (
            "Share of flags that are right against share of {finding} found. The dashed line is the"
            " prevalence in the test set: a network that guesses."
        ),
        "fig.pr.x": "Found (recall)",
        "fig.pr.y": "Flags that are right (precision)",
        "fig.pr.baseline": "guessing",
        "fig.hist": "Scores of the test set",
        "fig.hist.desc": (
            "How many cases have each score: with {finding} above the line, without it below."
            " The vertical line is the frozen threshold."
        ),
        "fig.hist.x": "Score of the network",
        "fig.hist.y": "Cases in the bin, % of group",
        "fig.hist.with": "with {finding}",
        "fig.hist.without": "without",
        "fig.rel": "Calibration",
        "fig.rel.desc": (
            "How often {finding} was really there, for cases with about the same score. On the"
            " dashed line the score can be read as a probability."
        ),
        "fig.rel.x": "Score of the network",
        "fig.rel.y": "Really had the finding",
        "fig.rel.perfect": "perfect",
        "fig.rel.count": "Cases in bin",
        "fig.dec": "Decision curve",
        "fig.dec.desc": (
            "Net benefit of acting on the network, compared with acting on everyone and on nobody,"
            " for each risk at which one would act."
        ),
        "fig.dec.x": "Risk at which one would act",
        "fig.dec.y": "Net benefit",
        "fig.dec.model": "network",
        "fig.dec.all": "everyone",
        "fig.dec.none": "nobody",
        "fig.bland": "Agreement with the reference (Bland-Altman)",
        "fig.bland.desc": (
            "{finding}: error of each estimate against the mean of estimate and reference. Solid"
            " line: bias; dashed lines: 95% of the errors are expected between them."
        ),
        "fig.bland.x": "Mean of estimate and reference",
        "fig.bland.y": "Estimate minus reference",
        "fig.strip": "Dice of every case",
        "fig.strip.desc": "{finding}: each mark is one case, from the worst to the best.",
        "fig.strip.x": "Cases, worst first",
        "fig.strip.y": "Dice",
        "fig.forest.desc": (
            "{measure} with its interval in each subgroup; the dashed line is the whole test set."
        ),
        "fig.low": "Low",
        "fig.high": "High",
        "fig.loss": "Loss by epoch",
        "fig.loss.desc": (
            "Training and validation loss by epoch; the shaded columns are the stages of training."
        ),
        "fig.loss.y": "Loss",
        "fig.metric": "Validation measure by epoch",
        "fig.metric.desc": "The measure watched on validation, by epoch.",
        "fig.metric.y": "Validation measure",
        "fig.epoch": "Epoch",
        "fig.train": "training",
        "fig.val": "validation",
        "fig.best": "kept",
        "fig.missing": "the curve “{name}” in metrics.json",
        # confusion
        "confusion.title": "Confusion table",
        "confusion.lead": "Rows are the truth, columns what the network said. Test set.",
        "confusion.corner": "Truth",
        # gallery
        "nav.cases": "Cases to look at",
        "cases.lead": (
            "The most wrong and the least certain cases of the test set. The heat map (Grad-CAM)"
            " shows where the score is sensitive; it is not an outline of disease and no proof of"
            " a right reason."
        ),
        "cases.toggle": "Show Grad-CAM on all pictures",
        "cases.toggle_one": "Grad-CAM",
        "cases.missed": "Missed",
        "cases.missed.lead": "With the finding, score below the threshold.",
        "cases.false_alarm": "Wrongly flagged",
        "cases.false_alarm.lead": "Without the finding, score at or above the threshold.",
        "cases.uncertain": "Least certain",
        "cases.uncertain.lead": "Scores nearest to the threshold, right or wrong.",
        "cases.other": "Other cases",
        "cases.other.lead": "As the run chose them.",
        "cases.score": "score {score}, threshold {threshold}",
        "cases.score_only": "score {score}",
        "cases.truth_yes": "truth: with {finding}",
        "cases.truth_no": "truth: without {finding}",
        "cases.truth_value": "truth: {value}",
        "cases.alt": "{kind}, case {case}",
        "cases.alt_cam": "Grad-CAM of case {case}",
        "cases.no_cam": "no Grad-CAM",
        "cases.picture_missing": "picture not available: {reason}",
        "cases.none": "pictures of cases (the run stored no gallery)",
        "cases.left_out": "{n} pictures were left out to keep this file small.",
        # cohort
        "nav.cohort": "Cohort",
        "cohort.none": "the description of the cohort (cohort.json)",
        "cohort.flow": "Who was counted",
        "cohort.excluded": "Left out",
        "cohort.excluded_none": "Nothing was left out.",
        "cohort.used": "Used",
        "cohort.train": "Training",
        "cohort.val": "Validation",
        "cohort.test": "Test",
        "cohort.train.for": "the network learns",
        "cohort.val.for": "stopping and threshold",
        "cohort.test.for": "opened once, this report",
        "cohort.table": "Characteristics of each part",
        "cohort.images": "Images",
        "cohort.patients": "Patients",
        "cohort.age": "Age",
        "cohort.positive": "{finding}: with",
        "cohort.negative": "{finding}: without",
        "cohort.missing": "{finding}: not labelled",
        "cohort.uncertain": "{finding}: uncertain",
        "cohort.hash": "Split fingerprint {hash}",
        "cohort.reason": "Reason",
        "cohort.n": "n",
        # data quality
        "nav.quality": "Data quality",
        "quality.none": "the data-quality record (data_quality.json)",
        "quality.clean": "No image was flagged and none was refused.",
        "quality.flags": "What was flagged",
        "quality.flag": "Flag",
        "quality.cases": "Cases",
        "quality.list": "Flagged cases ({n})",
        "quality.quarantined": "Refused images ({n})",
        "quality.cause": "Cause",
        "quality.case": "Case",
        "quality.split": "Part",
        "quality.file": "File",
        "quality.more": "{n} more are in data_quality.json.",
        # learning
        "nav.learning": "How it learned",
        "learning.none": "the training history (history.csv)",
        "learning.overfit": (
            "Overfitting after epoch {best}: by the last epoch training loss went on falling"
            " ({train_best} to {train_last}) while validation loss rose ({val_best} to {val_last})."
        ),
        "learning.gap": (
            "At epoch {best}, its lowest, validation loss ({val_best}) is well above training loss"
            " ({train_best}): the network fits its training patients better than new ones."
        ),
        "learning.underfit": (
            "Possibly underfit: validation loss was still falling in the last epochs"
            " ({val_before} to {val_last}). More epochs could help."
        ),
        "learning.good": (
            "No sign of over- or underfitting: validation loss levelled off and stayed near"
            " training loss (lowest at epoch {best}: training {train_best}, validation {val_best})."
        ),
        "learning.short": "Too few epochs to judge over- or underfitting.",
        "learning.rule": (
            "A reading by fixed rules of the loss curves (5% of the loss counts as a change, 25% as"
            " a gap), not a test."
        ),
        "learning.stages": "Stages",
        "learning.stage": "Stage",
        "learning.epochs": "Epochs",
        "learning.lr": "Learning rate head / base, first epoch",
        "learning.val": "Best validation loss",
        "learning.seconds": "Time",
        # measures
        "nav.measures": "All measures",
        "measures.lead": "As stored in metrics.json; nothing here was computed by the report.",
        "measures.name": "Measure",
        "measures.label": "Finding",
        "measures.split": "Part",
        "measures.value": "Value (interval)",
        "measures.n": "n / with / patients",
        "measures.method": "Interval by",
        "measures.more": "The {n} measures of subgroups are in metrics.json and in their tables.",
        "measures.notes": "Notes of the evaluation",
        # run record
        "nav.record": "Run record",
        "record.environment": "Environment",
        "record.no_environment": "the environment (environment.json)",
        "record.recipe": "Recipe, as resolved",
        "record.no_recipe": "the recipe (recipe.yaml)",
        # limits
        "nav.limits": "Limits",
        "limits.lead": "Found by fixed rules in the data of this run. They are not complete.",
        "limits.person": "What only a person can state",
        "limits.person_lead": (
            "Reporting guidelines (CLAIM, STARD, TRIPOD+AI) ask for these; software cannot know"
            " them."
        ),
        "limit.synthetic": "anything about patients: the images are synthetic",
        "limit.threshold_test": "{finding}: the threshold was chosen on the test set itself",
        "limit.no_threshold": "{finding}: yes-or-no answers, for no threshold was fixed beforehand",
        "limit.undefined": "{finding}: {measure} could not be estimated ({reason})",
        "limit.degenerate": "{finding}: {measure} has an interval that says nothing ({reason})",
        "limit.few": "{finding}: precise rates, for only {n} tested {unit} have it",
        "limit.wide": (
            "{finding}: a precise share of {unit} found, for the interval spans {width} of 100"
        ),
        "limit.no_prevalence": (
            "predictive values in your practice: the study states no prevalence"
        ),
        "limit.prevalence_shift": (
            "{finding}: predictive values of the test set, where {test} have it; the study assumes"
            " {stated}"
        ),
        "limit.subgroup_small": "comparing subgroups with few cases: {groups}",
        "limit.no_subgroups": "any subgroup by age, sex, view or site: none was reported",
        "limit.miscalibrated": "{finding}: reading the score as a probability; calibration was not"
        " measured",
        "limit.quarantined": "images like the {n} that were refused",
        "limit.external": (
            "other hospitals and other machines: the run cannot show that the test set is external"
        ),
        "limit.human": (
            "how it works with a reader at the screen: this is a test-set result, not a trial"
        ),
        "person.intended_use": "Intended use, user and place in the pathway",
        "person.out_of_scope": "Out-of-scope use",
        "person.reference_standard": "Reference standard: who read, how, how blinded, agreement",
        "person.sampling": "How patients were chosen, where and when",
        "person.external": "Internal or external test set",
        "person.endpoint": "Primary endpoint fixed beforehand",
        "person.funding": "Funding, conflicts of interest, contact",
        # small words
        "unit.patients": "patients",
        "unit.images": "images",
        "unit.cases": "cases",
        "split.train": "training",
        "split.val": "validation",
        "split.test": "test",
        "finding.unnamed": "the finding",
        "word.all": "all",
    }
)


def fill(key: str, **values: object) -> Markup:
    """The text of `key` with `values` escaped into its braces."""
    return Markup(EN[key]).format(**values)


def plain(key: str, **values: object) -> str:
    """The text of `key` as a plain string, not yet escaped, for places without markup."""
    return EN[key].format(**values)
