"""The report as PDF: the same page, printed by a browser that is on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from os import PathLike
from pathlib import Path

from medtl.errors import RunError
from medtl.storage.atomic import write_bytes

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
"""Programs that print a page without a window, in the order in which they are looked for."""

TIMEOUT_S = 180
"""A page takes a few seconds; a browser that hangs is stopped."""

FLAGS = (
    *("--headless", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
    *("--no-pdf-header-footer", "--run-all-compositor-stages-before-draw"),
    # Nothing is looked up: the page is complete, and a report must not tell anyone of itself.
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9"),
)


def write_pdf(html: str | PathLike[str], pdf: str | PathLike[str]) -> Path:
    """Print a report to PDF, all or nothing, and return the PDF's path.

    Args:
        html: A report; the browser reads nothing else.
        pdf: The file to write; its folder must exist.

    Raises:
        RunError: There is no browser, or it could not print.
    """
    html, pdf = Path(html), Path(pdf)
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise RunError(
            "no browser to print the PDF with",
            expected=f"one of {', '.join(BROWSERS[:3])} on the PATH",
            fix="Install Chromium, or open the HTML report and print it to PDF; it has the same"
            " content",
        )
    # The sandbox of Chromium cannot start as root, as in most containers.
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "report.pdf"
        ends = (f"--user-data-dir={folder}/profile", f"--print-to-pdf={printed}")
        command = [browser, *FLAGS, *sandbox, *ends, html.resolve().as_uri()]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
            content = printed.read_bytes()
        except (OSError, subprocess.SubprocessError) as error:
            raise RunError(
                f"{Path(browser).name} could not print the report ({type(error).__name__})",
                where=html.name,
                fix="Open the HTML report and print it to PDF",
            ) from error
    write_bytes(pdf, content)
    return pdf
