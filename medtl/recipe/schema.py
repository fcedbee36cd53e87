"""The recipe: everything a run needs, as one frozen, checked value.

A recipe is YAML that people write; this module knows its keys, their types and ranges, and nothing
else. `parse_recipe` reports every fault at once, each with the nearest valid name. Only `run/` and
what lies above it ever see a `Recipe`; the library takes plain arguments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from medtl.errors import MedtlError, RecipeError, WeightsError
from medtl.io.cost import DEFAULT_LIMITS, Limits
from medtl.losses.adversarial import AdversarialTraining
from medtl.losses.given import GivenInPython
from medtl.losses.mixing import Mix
from medtl.losses.mixmatch import MixMatch
from medtl.networks.names import FEATURES
from medtl.networks.pretrained.cards import NO_CARD, Card, find_card
from medtl.preprocess.safety import safety
from medtl.recipe.about import Study
from medtl.recipe.faults import faults_of
from medtl.recipe.finetune import Finetune
from medtl.recipe.imaging import ImageSpec
from medtl.recipe.section import FromMapping, Section
from medtl.recipe.task import NAMED, OF_MASKS, QUANTITIES, TaskSpec
from medtl.types import Count, Fraction, Positive

GIVEN = "python: "
"""A backbone that was given as a Python object is written with this before its name."""

UncertainPolicy = Literal["ignore", "zeros", "ones", "smoothed"]


class SplitSpec(Section):
    """How patients are divided when the manifest does not say, and how many of them train."""

    fractions: tuple[Positive, Positive, Positive] = Field(
        (8.0, 1.0, 1.0), description="parts of train, val and test"
    )
    seed: int = Field(0, description="of the division")
    train_share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="of the training patients; a smaller share is part of a larger one"
    )


class Data(Section):
    """The manifest and what its columns are used for."""

    manifest: str = Field(description="CSV or Parquet, relative to the recipe")
    target: str | tuple[str, ...] = Field(
        (), description="one column, or several for multi-label; none for segmentation"
    )
    mask: str | None = Field(None, description="column with the mask of each image")
    sex: str | None = Field(
        None, description="column that the network is told besides the image: F or M (a quantity)"
    )
    names: dict[str, str] | None = Field(
        None, description="target column -> what the finding is called in the report"
    )
    codes: dict[str, str] = Field(
        {}, description='target column -> code in DICOM objects: "SCT:36118008", "RADLEX:RID5352"'
    )
    positive: str | None = Field(None, description="class that counts as positive, if two texts")
    labels: dict[str, str | int] = Field(
        {},
        description="cell of the target column -> 1 present, 0 absent, -1 uncertain, '' missing, "
        "or the name of a class",
    )
    listed_in: str | None = Field(
        None, description="column whose cells list findings; target then names the findings"
    )
    separator: str = Field("|", min_length=1, description="what stands between listed findings")
    where: str = Field("", description="the rows to take, for example view in [AP, PA]")
    columns: dict[str, str] = Field(
        {},
        description="medtl's name of a column (image, patient_id, ...) -> that in the table",
    )
    classes: tuple[str, ...] = Field(
        (), description="all values the target column may have; any other is a fault"
    )
    soft: bool = Field(False, description="cells of the target are probabilities in [0, 1]")
    raters: str | tuple[str, ...] = Field(
        (),
        description="columns with the labels of several raters (target then says what they label), "
        "or the column that says who read a row",
    )
    consensus: str | None = Field(
        None, description="several raters: majority, mean (a soft label) or the name of one of them"
    )
    ties: Literal["fault", "uncertain"] = Field("fault", description="raters without a majority")
    exam: str | None = Field(
        None, description="column of the examination (study UID) that has one label for its images"
    )
    exam_score: Literal["max", "mean", "noisy_or"] | None = Field(
        None, description="how the scores of an exam's images become one, which is evaluated"
    )
    devices: bool = Field(
        False, description="count makers, devices and years of the images from their DICOM headers"
    )
    duplicates: Literal["keep", "drop"] = Field(
        "keep", description="drop: of equal images with equal labels, the first alone is used"
    )
    uncertain: UncertainPolicy | dict[str, UncertainPolicy] = Field(
        "ignore", description="what training does with -1, for all labels or per label"
    )
    missing: Literal["ignore", "zeros"] = Field("ignore", description="what an empty cell means")
    strata: tuple[str, ...] = Field((), description="columns that the report breaks results by")
    ids: Literal["pseudonymise", "pseudonymous"] = Field(
        "pseudonymise", description="pseudonymous: they identify nobody already and are kept"
    )
    one_image_per_patient: bool = Field(False, description="there is no patient_id column")
    split: SplitSpec = SplitSpec()
    max_unreadable: Fraction = Field(0.05, description="share of bad files at which a run stops")
    limits: Annotated[Limits, FromMapping()] = Field(
        DEFAULT_LIMITS, description="what one image file may cost, where it may be more"
    )

    @model_validator(mode="after")
    def _something_to_learn(self) -> Data:
        if not self.targets and self.mask is None:
            msg = "state the target column, or for segmentation the mask column"
            raise ValueError(msg)
        for key, names in (("target", self.targets), ("classes", self.classes)):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                msg = f"{key} names {', '.join(twice)} twice: name each once"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _several_become_one(self) -> Data:
        raters = (self.raters,) if isinstance(self.raters, str) else self.raters
        if bool(raters) != (self.consensus is not None):
            names = f" or the name of one of {', '.join(raters)}" if len(raters) > 1 else ""
            msg = f"raters need consensus, and only they: majority, mean{names or ' or a name'}"
            raise ValueError(msg)
        if len(raters) > 1 and (len(self.targets) != 1 or self.listed_in is not None):
            msg = "columns of several raters make one target: state what to call it, target: NAME"
            raise ValueError(msg)
        if len(raters) > 1 and self.consensus not in ("majority", "mean", *raters):
            msg = f"consensus is none of majority, mean, {', '.join(raters)}"
            raise ValueError(msg)
        if (self.exam is None) != (self.exam_score is None):
            msg = "exam and exam_score go together: exam: COLUMN, exam_score: max, mean or noisy_or"
            raise ValueError(msg)
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """The target columns, always as a tuple."""
        return (self.target,) if isinstance(self.target, str) else self.target


class Augment(Section):
    """Training-time augmentation; what is safe is looked up in the safety table by modality."""

    policy: Literal["safe", "none"] = Field("safe", description="safe: what the modality allows")
    probability: Fraction = Field(0.5, description="of each transform, for each image and epoch")
    transforms: dict[str, dict[str, Any]] | None = Field(
        None, description="instead of the modality's own list: name -> parameters"
    )
    i_know: tuple[str, ...] = Field((), description="unsafe transforms wanted all the same")


class WeightsSpec(Section):
    """Where the initial weights come from."""

    source: Literal["bundled", "file", "timm", "none"] = Field(
        "bundled",
        description="bundled comes with medtl (tf_efficientnet_lite0, 1 and 2, made for 224, 240 "
        "and 260 pixels; files of 18, 21 and 24 MB), timm is fetched",
    )
    path: str | None = Field(None, description="for 'file', relative to the recipe")
    sha256: str | None = Field(None, description="for 'file': its hash, checked before loading")
    allow_missing: tuple[str, ...] | None = Field(
        None,
        description="for 'file': names (* for any letters) of the backbone's tensors that it need "
        "not hold; they stay random",
    )
    card: str | None = Field(
        None,
        description="what is known of published weights, by name (medtl weights list); none: a "
        "file is not of the card whose names it has",
    )
    random_features: Literal[True] | None = Field(
        None,
        description="for 'none': stages may freeze layers that stay random, as a control does",
    )

    @model_validator(mode="before")
    @classmethod
    def _a_path_is_of_a_file(cls, given: Any) -> Any:
        is_file = isinstance(given, Mapping) and "path" in given and "source" not in given
        return {"source": "file", **given} if is_file else given

    @model_validator(mode="after")
    def _file_has_a_path(self) -> WeightsSpec:
        if (self.source == "file") != (self.path is not None):
            msg = "a path goes with source 'file', and only with it"
            raise ValueError(msg)
        if self.card is not None and self.source in ("bundled", "timm"):
            msg = f"a card belongs to a file: state its path, {{card: {self.card}, path: FILE}}"
            raise ValueError(msg)
        if self.random_features and self.source != "none":
            msg = "random_features goes with source 'none', and only with it"
            raise ValueError(msg)
        return self

    @property
    def known(self) -> Card | None:
        """The weights card, where one is named."""
        return None if self.card in (None, NO_CARD) else find_card(str(self.card))

    @property
    def random(self) -> WeightsSpec:
        """No weights, for the network that these are of."""
        return WeightsSpec(source="none", card=self.card, random_features=True)


class Model(Section):
    """The network."""

    backbone: str = Field(
        "tf_efficientnet_lite0",
        description="any timm name; for volumes unet_3d, segresnet_3d, ...; features: the images "
        "are vectors made elsewhere (medtl manifest features)",
    )
    weights: WeightsSpec = WeightsSpec()
    reuse_until: str | None = Field(
        None, description="last layer group of the backbone that is used; far domains need fewer"
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.2, description="share of the features that the head loses in training"
    )
    decoder: Literal["unet", "fpn", "deeplabv3plus"] = Field(
        "unet", description="segmentation of planes: what stands on the backbone"
    )
    width: Annotated[int, Field(ge=4, le=128)] = Field(
        16, description="segmentation of volumes: channels of the first level"
    )
    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.5, description="segmentation: of the windows that a large image goes through in"
    )

    @property
    def is_of_features(self) -> bool:
        """Whether vectors that were made elsewhere are the input."""
        return self.backbone == FEATURES

    @property
    def is_random(self) -> bool:
        """Whether the layers below the head start from nothing."""
        return self.weights.source == "none" and self.given is None and not self.is_of_features

    given: SkipJsonSchema[Callable[..., Any] | None] = Field(None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _architecture_of_the_card(cls, given: Any) -> Any:
        weights = given.get("weights") if isinstance(given, Mapping) else None
        if isinstance(given, Mapping) and given.get("backbone") == FEATURES:
            none = {"source": "none"}
            if weights not in (None, "none", none, {**none, "random_features": True}):
                msg = "backbone features has no weights: leave model.weights out"
                raise ValueError(msg)
            return {**given, "weights": weights or none}
        name = weights.get("card") if isinstance(weights, Mapping) else None
        if not isinstance(name, str) or name == NO_CARD:
            return given
        try:
            card = find_card(name)
        except WeightsError as error:
            raise ValueError(str(error)) from error
        stated = given.get("backbone", card.backbone)
        if stated != card.backbone:
            msg = f"the weights card {name} is of the backbone {card.backbone}, not {stated}"
            raise ValueError(msg)
        return {**given, "backbone": card.backbone}

    @field_validator("weights", mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value


class Seeds(Section):
    """Separate seeds, for studies that vary one source of randomness and hold the others."""

    split: Annotated[int, Field(ge=0)] | None = Field(
        None, description="who trains and who tests; data.split.seed when not stated"
    )
    init: Annotated[int, Field(ge=0)] | None = Field(None, description="weights of new layers")
    order: Annotated[int, Field(ge=0)] | None = Field(
        None, description="order of the training cases, and dropout"
    )
    augment: Annotated[int, Field(ge=0)] | None = Field(
        None, description="what is drawn in augmentation"
    )


class Runtime(Section):
    """On what, and from which seed."""

    seed: Annotated[int, Field(ge=0)] = Field(0, description="of everything that is drawn")
    seeds: Seeds | None = Field(None, description="instead of seed, for what is named")
    members: Count = Field(
        1,
        description="networks, trained one after another from this seed and the next ones on the "
        "same patients; their outputs are averaged into one model",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: the GPU if there is one"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 on a GPU that has it, else fp32"
    )
    workers: Annotated[int, Field(ge=0)] = Field(
        0, description="processes that read images beside the training"
    )
    cache_gb: Annotated[float, Field(ge=0.0)] = Field(
        20.0, description="what this user's cache of images and activations may hold; 0 for none"
    )
    tensorboard: bool = Field(
        True, description="losses, the watched statistic and rates of each epoch, for TensorBoard"
    )
    mlflow: str | None = Field(None, description="tracking URI; needs medtl[tracking]")


class Recipe(Section):
    """A whole study."""

    study: Study
    data: Data
    image: ImageSpec
    augment: Augment = Augment()
    model: Model = Model()
    task: TaskSpec = TaskSpec()
    finetune: Finetune = Finetune()
    run: Runtime = Runtime()

    @model_validator(mode="after")
    def _columns_of_the_kind(self) -> Recipe:
        kind = self.task.kind
        if kind in QUANTITIES and len(self.data.targets) != 1:
            found = f"data.target names {len(self.data.targets)}"
            msg = f"{kind.replace('_', ' ')} has one target column; {found}"
            raise ValueError(msg)
        if self.image.decode == "reduced" and kind in OF_MASKS:
            msg = "masks are drawn on whole images: image.decode 'reduced' is not for segmentation"
            raise ValueError(msg)
        if self.model.backbone.startswith(GIVEN) and kind in OF_MASKS:
            msg = f"a backbone given in Python is not for {kind}"
            raise ValueError(msg)
        if (self.data.soft or self.data.raters) and kind in (*QUANTITIES, *OF_MASKS):
            msg = f"data.soft and data.raters are for kind classification, not {kind}"
            raise ValueError(msg)
        if self.data.exam and (
            kind in OF_MASKS or (kind in QUANTITIES and self.data.exam_score != "mean")
        ):
            msg = f"exam_score {self.data.exam_score} means nothing to kind {kind}"
            raise ValueError(msg)
        self._refuse_stray_prevalences()
        self._refuse_unsafe_mixtures()
        self._refuse_unfit_methods()
        self._refuse_pictures_of_features()
        if self.data.sex is not None and kind not in QUANTITIES:
            msg = f"data.sex is an input of kind {' or '.join(QUANTITIES)}, not of {kind}"
            raise ValueError(msg)
        return self

    def _refuse_stray_prevalences(self) -> None:
        """Refuse a prevalence of a finding that there is not, before a network is trained for it.

        Of one column without `positive` and `classes`, its cells alone say what the findings are.
        """
        data, stated = self.data, self.study.prevalence
        findings = [(data.names or {}).get(name, name) for name in data.targets]
        if len(findings) == 1 and data.positive is None:
            findings = [*findings, *data.classes] if data.classes else []
        if not isinstance(stated, dict) or not findings:
            return
        if strangers := [name for name in stated if name not in findings]:
            msg = f"study.prevalence is stated for {', '.join(strangers)}; the findings are "
            raise ValueError(msg + f"{', '.join(findings)}")

    def _refuse_pictures_of_features(self) -> None:
        """Refuse what asks for pictures where vectors made elsewhere are the input."""
        keys = ("image.spacing", "image.superres", "augment.transforms", "finetune.mix")
        more = ("finetune.learn", "model.reuse_until")
        parts = {key: key.split(".") for key in (*keys, *more)}
        stated = [k for k, (one, two) in parts.items() if getattr(getattr(self, one), two)]
        stated += [f"task.kind {self.task.kind}"] if self.task.kind in OF_MASKS else []
        if self.model.is_of_features and stated:
            msg = f"{', '.join(stated)} is of images, and backbone features takes vectors"
            raise ValueError(msg)

    def _refuse_unsafe_mixtures(self) -> None:
        """Refuse to mix what has no mean, and what the safety table calls unsafe."""
        mix, kind = self.finetune.mix, self.task.kind
        if isinstance(self.finetune.learn, MixMatch):
            mix = Mix(mixup=self.finetune.learn.alpha)
        if mix is None:
            return
        if kind in QUANTITIES:
            msg = f"the quantity of a mixed image is not known: finetune.mix is not for {kind}"
            raise ValueError(msg)
        for name in mix.asked:
            verdict = safety(name, self.image.modality)
            is_known = name in self.augment.i_know
            if (verdict.level == "UNSAFE" or kind in OF_MASKS) and not is_known:
                reason = "masks of mixed images overlap" if kind in OF_MASKS else verdict.reason
                msg = f"{name} on {self.image.modality}: {reason}; add {name} to augment.i_know if "
                msg += "you know that it does no harm here"
                raise ValueError(msg)

    def _refuse_unfit_methods(self) -> None:
        """Refuse a way of learning that the kind of task has no meaning for."""
        learn, kind = self.finetune.learn, self.task.kind
        if learn is None:
            return
        if isinstance(learn, AdversarialTraining):
            self._refuse_what_has_no_bound(learn)
        elif kind in (*QUANTITIES, *OF_MASKS):
            msg = f"finetune.learn {learn.method} compares probabilities of labels, which {kind} "
            msg += "does not have; it is for kind classification"
            raise ValueError(msg)
        if self.finetune.mix is not None:
            msg = f"finetune.mix and finetune.learn {learn.method} both change the images that are "
            msg += "learned: leave one out"
            raise ValueError(msg)

    def _refuse_what_has_no_bound(self, learn: AdversarialTraining) -> None:
        """Refuse attacks on images whose standardisation hides what they look like."""
        image = self.image
        found = image.standardise in ("z_score", "local_contrast") and f"by {image.standardise}"
        if image.spacing is not None:
            found = "as volumes"
        if found:
            msg = f"finetune.learn {learn.method} bounds changes of pictures that are standardised "
            msg += f"alike; these are standardised {found}: state image.standardise: weights"
            raise ValueError(msg)

    def seed_of(self, source: Literal["split", "init", "order", "augment"]) -> int:
        """The seed of one source of randomness."""
        stated = None if self.run.seeds is None else getattr(self.run.seeds, source)
        if stated is not None:
            return int(stated)
        return self.data.split.seed if source == "split" else self.run.seed

    def member(self, number: int) -> Recipe:
        """The recipe of one network of `run.members`: later seeds, the same patients."""
        seeds = self.run.seeds
        if seeds is not None:
            own = {k: None if v is None or k == "split" else v + number for k, v in seeds}
            seeds = Seeds(**{**own, "split": seeds.split})
        update = {"seed": self.run.seed + number, "seeds": seeds, "members": 1}
        return self.model_copy(update={"run": self.run.model_copy(update=update)})

    def __repr__(self) -> str:
        what = ", ".join((*self.data.targets, *filter(None, [self.data.mask])))[:200]
        size, model = " x ".join(map(str, self.image.shape)), self.model.backbone
        return f"Recipe({self.task.kind} of {what}, {self.image.modality} {size}, {model[:80]})"

    @property
    def given(self) -> tuple[str, ...]:
        """What was given as Python objects, in words: a written recipe holds no more of them."""
        loss, backbone = self.task.loss, self.model.backbone
        said = [f"loss: {loss.what}"] if isinstance(loss, GivenInPython) else []
        said += [f"backbone: {backbone.removeprefix(GIVEN)}"] if backbone.startswith(GIVEN) else []
        return tuple(said)

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe, every default written out, as plain JSON types."""
        data: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        return data

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the resolved recipe; two recipes with one fingerprint train alike."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def parse_recipe(data: object, *, where: str = "recipe") -> Recipe:
    """Return the checked recipe.

    Args:
        data: What the YAML file holds, as plain Python types.
        where: The recipe's file name, for messages.

    Raises:
        RecipeError: With every fault of the schema, in one go.
    """
    if not isinstance(data, Mapping):
        fault = MedtlError(
            f"the recipe is a {type(data).__name__}",
            expected=f"a mapping with the keys {', '.join(Recipe.model_fields)}",
        )
        raise RecipeError([fault], where=where)
    try:
        return Recipe.model_validate(_with_tuples(data))
    except ValidationError as error:
        raise RecipeError(faults_of(error, Recipe), where=where) from None


def with_objects(
    recipe: Recipe,
    *,
    loss: Callable[..., Any] | None = None,
    backbone: Callable[[], Any] | None = None,
) -> Recipe:
    """Return the recipe of a study with Python objects in place of what it names.

    The recipe carries the objects through the process; written, it holds their names ("loss: given
    in Python"), so that a run says what it was made with.

    Args:
        recipe: The recipe.
        loss: A loss of `medtl.losses`, which the recipe then states as if it had been written; or
            any callable of (outputs, targets) -> scalar tensor, outputs and targets as the task has
            them: logits `(B, K)` and targets `(B, K)` or `(B,)`, NaN where not known; standardised
            predictions and truths `(B,)` of a quantity; logits and masks of structures.
        backbone: Called without arguments, returns a network from images to pooled features in
            timm's words (`forward_features`, `forward_head`, `num_features`), such as
            `functools.partial(timm.create_model, "resnet18", num_classes=0)`. It brings its own
            weights; `model.weights` is not asked.

    Raises:
        RecipeError: When the recipe cannot be combined with the object.

    Example:
        >>> from medtl.losses.cross_entropy import Focal
        >>> recipe = parse_recipe({
        ...     "study": {"question": "Is there an effusion?"},
        ...     "data": {"manifest": "cases.csv", "target": "effusion"},
        ...     "image": {"modality": "cxr"},
        ... })
        >>> with_objects(recipe, loss=Focal(gamma=3.0)).task.loss
        Focal(gamma=3.0, alpha=None, label_smoothing=0.0)
        >>> with_objects(recipe, loss=max).to_dict()["task"]["loss"]
        {'what': 'max', 'name': 'python'}
    """
    data = recipe.to_dict()
    data["task"]["loss"] = recipe.task.loss
    if loss is not None:
        known = isinstance(loss, tuple(NAMED.values()))
        data["task"]["loss"] = loss if known else GivenInPython(_name_of(loss), loss)
    if backbone is not None:
        data["model"] |= {"backbone": f"{GIVEN}{_name_of(backbone)}", "given": backbone}
        data["model"]["weights"] = {"source": "none"}
    return parse_recipe(data)


def _name_of(given: Any) -> str:
    """Name of a function, or of an object's class."""
    return str(getattr(given, "__name__", type(given).__name__))


def _with_tuples(value: Any) -> Any:
    """YAML's lists as the tuples of a frozen recipe: strict validation takes nothing else."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value
