"""Write the report: measures and records in, one HTML file without any outside reference out."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, TypedDict, Unpack

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medtl import __version__
from medtl.errors import RunError
from medtl.report import card
from medtl.report.dossier import write_dossier
from medtl.report.language import numbers as words
from medtl.report.language.texts import fill, knows, plain, speaking, spoken, translated
from medtl.report.page import caveats as limits
from medtl.report.page import drawings, headline, learned, models, slider, transfer
from medtl.report.page import finding as view
from medtl.report.page import sections as records
from medtl.report.page.checklist import checklist, dossier, guidelines, known_content
from medtl.report.page.gravest import concern_lines
from medtl.report.page.probability import answers
from medtl.report.svg import panels
from medtl.storage.atomic import write_json, write_text

SCHEMA = "medtl-metrics/1"

Row = Mapping[str, Any]


class Records(TypedDict, total=False):
    """The records of a run beside its measures; what is missing is named in the report.

    Attributes:
        history: Rows of history.csv, in order.
        layers: Content of layers.json.
        learning: Content of learning.json.
        sanity: Content of sanity.json.
        shortcuts: Content of shortcuts.json, of a study of the same recipe.
        curve: Content of learning_curve.json, of a study of the same recipe.
        forgetting: Content of forgetting.json, of a guard whose tuned run this is.
        stress: Folder with robustness.json and its pictures, of this run.
        gallery: Folder with gallery.json and its pictures.
        cohort: Content of cohort.json.
        data_quality: Content of data_quality.json.
        recipe: Content of recipe.yaml.
        recipe_text: The resolved recipe.
        environment: Content of environment.json.
    """

    history: Sequence[Row] | None
    layers: Row | None
    learning: Row | None
    sanity: Row | None
    shortcuts: Row | None
    curve: Row | None
    forgetting: Row | None
    stress: Path | None
    gallery: Path | None
    cohort: Row | None
    data_quality: Row | None
    recipe: Row | None
    recipe_text: str | None
    environment: Row | None


def write_report(
    out: str | PathLike[str],
    *,
    metrics: dict[str, Any],
    study: Row,
    synthetic: bool = False,
    language: str = "en",
    **records_of_run: Unpack[Records],
) -> Path:
    """Write the report as one HTML file, all or nothing; return its path.

    Beside it, the same content is left as a model card, `model_card.json` and `model_card.md`, and
    the reporting checklists item by item, `reporting_checklist.csv` and `.docx`. The report
    computes no statistics: every number comes from `metrics` and the records. A part that is None
    is named in the report as missing.

    Args:
        out: The HTML file; its folder must exist.
        metrics: Content of metrics.json ("medtl-metrics/1").
        study: `question`, `intended_use`, `title`, `prevalence` in (0, 1) and the other fields of
            `limits.PERSON_FIELDS`; all optional.
        synthetic: True when the images are phantoms; the report says so on top.
        language: One of `texts.LANGUAGES`.
        records_of_run: See `Records`.

    Raises:
        RunError: `metrics` is of another schema, gallery.json is not a list of cases, the language
            is unknown, or a file cannot be written.
    """
    out = Path(out)
    with speaking(language):
        page = _content(metrics, study, records_of_run, synthetic)
        write_text(out, _environment().get_template("report.html.j2").render(page))
        findings = [block["finding"] for block in page["findings"]]
        described = card.model_card(
            findings,
            study=page["study"],
            metrics=metrics,
            limits=[*page["concerns"], *page["limits"]],
            checks=page["checks"],
            environment=records_of_run.get("environment"),
        )
        write_json(out.with_name("model_card.json"), described)
        markdown = (
            _environment().get_template("card.md.j2").render(card=described, findings=findings)
        )
        write_text(out.with_name("model_card.md"), markdown.rstrip() + "\n")
        write_dossier(out.parent, page["dossier"])
    return out


def write_page(out: Path, template: str, content: Row) -> Path:
    """Write a page of its own in the report's style, in the language of the block.

    Args:
        out: The HTML file; its folder must exist.
        template: Its name in `templates/`.
        content: What the template shows.

    Returns:
        `out`.

    Raises:
        RunError: When the file cannot be written.
    """
    style = _asset("report.css")
    frame = {
        "language": spoken(),
        "version": __version__,
        "policy": _policy("", style),
        "style": Markup(style),
    }
    write_text(out, _environment().get_template(template).render({**frame, **content}))
    return out


def _content(metrics: Row, study: Row, given: Records, synthetic: bool) -> dict[str, Any]:
    """Everything the template shows; arguments as for `write_report`, the records by their name.

    Raises:
        RunError: `metrics` is of another schema, or gallery.json is not a list of cases.
    """
    if metrics.get("schema") != SCHEMA:
        raise RunError(
            f"metrics.json has the schema {str(metrics.get('schema', 'none'))[:40]!r}",
            expected=repr(SCHEMA),
            fix="Evaluate the predictions again with this version",
        )
    study = {**dict.fromkeys(("title", "question", *limits.PERSON_FIELDS)), **study}
    measures = view.read_measures(metrics)
    metrics = {**metrics, "measures": measures}
    found = view.read_findings(metrics)
    prevalences = {one.label: headline.stated_prevalence(study, one.label) for one in found}
    blocks = [_block(finding, metrics, prevalences[finding.label]) for finding in found]
    concerns = concern_lines(metrics)
    gallery = records.read_gallery(given.get("gallery"))
    history, environment = given.get("history"), given.get("environment")
    content = {**given, "gallery": gallery}
    known = known_content(found, study=study, metrics=metrics, records=content)
    script, style = _asset("report.js"), _asset("report.css")
    return {
        "gallery": gallery,
        "cohort": records.cohort_view(given.get("cohort")),
        "quality": records.quality_view(given.get("data_quality")),
        **learned.views(given),
        "learning": records.learning_view(history, given.get("recipe"), given.get("layers")),
        "recipe_text": given.get("recipe_text"),
        "environment": None if environment is None else records.environment_rows(environment),
        "language": spoken(),
        "version": __version__,
        "policy": _policy(script, style),
        "script": Markup(script),
        "style": Markup(style),
        "study": study,
        "synthetic": synthetic,
        "findings": blocks,
        "concerns": concerns,
        "several": sum(finding.classified for finding in found) > 1,
        "values": headline.values_overview(found),
        "pooled": {label: view.read_pooled(metrics, label) for label in ("macro", "overall")},
        "confusion": headline.confusion_view(metrics, found),
        "comparison": models.comparison_view(metrics),
        "external": transfer.external_view(metrics),
        "sites": transfer.sites_view(metrics),
        "openings": metrics.get("test_openings"),
        "worst": records.worst_view(metrics),
        "measures": [row for row in measures if row["subset"] == "all"],
        "n_subset": sum(row["subset"] != "all" for row in measures),
        "notes": [translated(note) for note in metrics.get("notes") or []],
        "limits": limits.find_limits(
            found,
            prevalences=prevalences,
            quality=given.get("data_quality"),
            synthetic=synthetic,
            openings=metrics.get("test_openings"),
        ),
        "stated": limits.stated(study),
        "checks": checklist(found, study=study, metrics=metrics, records=content),
        "dossier": dossier(known, study),
        "guidelines": guidelines(),
        "slider_data": _slider_data(blocks),
    }


def _block(finding: view.Finding, metrics: Row, prevalence: float | None) -> dict[str, Any]:
    """Everything the template shows about one finding."""
    readers = models.readers_of(metrics, finding.label)
    places = [(reader["name"], reader["place"]) for reader in readers if reader["place"]]
    drawn = drawings.draw(finding, places)
    thousand = headline.per_thousand(finding, prevalence)
    points, frozen = slider.slider_points(finding)
    icon = None
    if thousand:
        icon = panels.thousand(thousand, ident=f"{finding.ident}-icons", finding=finding.name)
    return {
        "finding": finding,
        "prevalence": prevalence,
        "headline": headline.headline(finding),
        "thousand": thousand,
        "icons": icon,
        "by_patient": bool(thousand and finding.size["n"] != finding.size["n_patients"]),
        "figures": drawn,
        "forests": drawings.forests(finding),
        "gaps": (gaps := drawings.gaps(finding)),
        "clear_gaps": any(
            (words.number(holm) or 0) < view.SIGNIFICANT for _, _, holm in gaps if holm
        ),
        "points": points,
        "frozen": frozen,
        "printed": slider.printed_points(finding),
        "readers": readers,
        "variants": models.variants_of(
            metrics, finding.label, finding.shown(("auroc", *view.AT_POINT[:2]))
        ),
        "values": finding.shown(finding.main()),
        "at_point": finding.shown(view.AT_POINT),
        "discrimination": finding.shown(view.DISCRIMINATION),
        "calibration": finding.shown(view.CALIBRATION),
        "probability": answers(finding, metrics) if finding.classified else None,
        "transfer": [(row.get("split"), view.show(row)) for row in finding.transfer],
    }


def _slider_data(blocks: list[dict[str, Any]]) -> Markup:
    """The counts at each threshold as JSON that is safe inside a script element."""
    data = {
        block["finding"].ident: {"points": block["points"], "frozen": block["frozen"]}
        for block in blocks
        if block["frozen"] >= 0 and len(block["points"]) > 1
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


@cache
def _environment() -> Environment:
    """Jinja2 with escaping on, and with a hole in the data an error."""
    environment = Environment(
        loader=PackageLoader("medtl.report", "templates"),
        autoescape=lambda name: name is None or not name.endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(sentence=words.sentence, cell=card.cell)
    environment.globals.update(
        t=fill,
        p=plain,
        knows=knows,
        said=translated,
        show=view.show,
        show_threshold=words.threshold_text,
        difference=words.difference_text,
        count=words.count_text,
        worst_cell=records.worst_cell,
        cell_text=words.cell,
        measure_cells=card.measure_cells,
        by_subgroup=card.by_subgroup,
        threshold_origin=headline.threshold_origin,
        threshold_facts=headline.threshold_facts,
        overview_cell=lambda block, which: headline.overview_cell(block["finding"], which),
        prevalence_cell=lambda of: headline.prevalence_cell(of["finding"], of["prevalence"]),
    )
    for function in (
        *(words.finding_name, words.p_text, words.per_100, words.percent, words.of_1000),
        *(words.share, words.subset_text, words.title_of),
    ):
        environment.globals[function.__name__] = function
    return environment


def _asset(name: str) -> str:
    """A style sheet or script that travels with the package."""
    return (resources.files("medtl.report") / "templates" / name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """Content-Security-Policy: nothing may be loaded, only our own script and style may act."""
    marks = [
        base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        for part in (script, style)
    ]
    return (
        f"default-src 'none'; img-src data:; script-src 'sha256-{marks[0]}'; "
        f"style-src 'sha256-{marks[1]}'; base-uri 'none'; form-action 'none'"
    )
