"""A hook of MkDocs: `reports/` lies beside `docs/`, and its pages belong to the manual."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]


def on_files(files, config):
    """Add the reports to the pages."""
    for page in sorted((ROOT / "reports").glob("*.md")):
        files.append(File.generated(config, f"reports/{page.name}", abs_src_path=str(page)))
    return files


def on_page_markdown(markdown, **_):
    """Lead links to `reports/` one folder less up: in the manual they lie below `docs/`."""
    return re.sub(r"\]\(\.\./((?:\.\./)*reports/)", r"](\1", markdown)
