"""A hook of MkDocs: pages that do not lie in `docs/` belong to the manual.

`reports/` lies beside `docs/`; the reference is made from the code each time (manual/reference.py).
"""

import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from manual.reference import PAGES  # noqa: E402  the folder must be on the path first


def on_files(files, config):
    """Add the reports, their figures and the reference to the pages."""
    for page in sorted((ROOT / "reports").iterdir()):
        if page.suffix in (".md", ".svg"):
            files.append(File.generated(config, f"reports/{page.name}", abs_src_path=str(page)))
    for name, make in PAGES.items():
        files.append(File.generated(config, name, content=make()))
    return files


def on_post_page(output, **_):
    """Name the search, which the theme leaves without a name for those who hear the page."""
    return output.replace('role="dialog">', 'role="dialog" aria-label="Search">')


def on_page_markdown(markdown, **_):
    """Lead links to `reports/` one folder less up: in the manual they lie below `docs/`."""
    return re.sub(r"\]\(\.\./((?:\.\./)*reports/)", r"](\1", markdown)
