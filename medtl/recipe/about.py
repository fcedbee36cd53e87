"""The section `study` of a recipe: the question, who would use the answer, the operating point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from medtl.metrics.operating_point import SHARES, with_assurance
from medtl.recipe.section import Section
from medtl.types import Positive

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]


class OperatingPointRule(Section):
    """How the decision threshold is chosen on the validation cases. State exactly one rule."""

    sensitivity: Probability | None = Field(None, description="highest threshold that reaches it")
    specificity: Probability | None = Field(None, description="lowest threshold that reaches it")
    youden: Literal[True] | None = Field(None, description="maximise sensitivity + specificity")
    f1: Literal[True] | None = Field(None, description="maximise F1")
    net_benefit: Probability | None = Field(None, description="at this threshold probability")
    cost_ratio: Positive | None = Field(None, description="cost of a miss over a false alarm")
    assurance: Annotated[float, Field(ge=0.0, lt=1.0)] | None = Field(
        None,
        description="certainty that new patients reach the sensitivity or specificity, 0.9 where "
        "none is stated; 0 takes the threshold that reached it on the validation cases",
    )

    @model_validator(mode="before")
    @classmethod
    def _promised(cls, given: Any) -> Any:
        stated = given if isinstance(given, Mapping) else {}
        return with_assurance({n: v for n, v in stated.items() if v is not None}) or given

    @model_validator(mode="after")
    def _exactly_one(self) -> OperatingPointRule:
        rule = self.rule()
        names = rule.keys() - {"assurance"}
        if len(names) != 1:
            msg = "state exactly one rule, for example {sensitivity: 0.90}"
            raise ValueError(msg)
        if "assurance" in rule and not names <= {*SHARES}:
            msg = "an assurance stands beside a sensitivity or a specificity"
            raise ValueError(msg)
        return self

    def rule(self) -> dict[str, float | bool]:
        """The one rule that is stated, as `{name: value}`, a share with its assurance."""
        return {name: value for name, value in self if value is not None}


ReportingItem = Literal[
    "paper",
    "design",
    "deidentification",
    "acquisition",
    "reference_rationale",
    "agreement",
    "sample_size",
    "ensemble",
    "users",
    "blinding",
    "severity",
    "alternatives",
    "interval",
    "representative",
    "adverse",
    "conflicts",
    "audit",
    "inequalities",
    "treatments",
    "imbalance",
    "involvement",
    "interpretation",
    "next_steps",
    "input_quality",
]
"""What reporting guidelines ask for beside the fields of `Study`."""


class Study(Section):
    """What the study asks, for the first page of the report."""

    question: str = Field(description="the clinical question in words")
    title: str = Field("", description="short name of the study, above the question")
    intended_use: str = Field("", description="who would use the model, where in the pathway")
    out_of_scope: str = Field("", description="on whom, or for what, it must not be used")
    reference_standard: str = Field("", description="who read, how, how blinded, agreement")
    sampling: str = Field("", description="how patients were chosen, where and when")
    external: str = Field("", description="whether the test set is internal or external")
    endpoint: str = Field("", description="the primary endpoint, fixed beforehand")
    funding: str = Field("", description="funding, conflicts of interest, contact")
    ethics: str = Field("", description="approval by an ethics committee, consent")
    registration: str = Field("", description="number and registry of the study")
    annotators: str = Field("", description="who annotated, with which experience")
    dates: str = Field("", description="first and last date of the data, setting")
    protocol: str = Field("", description="where the protocol can be read")
    availability: str = Field("", description="of code, model and data")
    reporting: dict[ReportingItem, str] = Field(
        {},
        description="what reporting guidelines ask for besides: {acquisition: ..., blinding: ...}",
    )
    operating_point: OperatingPointRule = OperatingPointRule(sensitivity=0.90)
    prevalence: Probability | dict[str, Probability] | None = Field(
        None, description="of the finding where it will be used, or of each: {hernia: 0.005}"
    )
    acting: tuple[Probability, Probability] | None = Field(
        None,
        description="lowest and highest probability of the finding at which a clinician would "
        "act, [0.05, 0.30]: the range of the decision curve",
    )
    synthetic: bool = Field(False, description="the images are drawn, not taken")

    @field_validator("acting")
    @classmethod
    def _ascending(cls, given: tuple[float, float] | None) -> tuple[float, float] | None:
        if given and given[0] >= given[1]:
            msg = "state the lower probability first, [0.05, 0.30]"
            raise ValueError(msg)
        return given
