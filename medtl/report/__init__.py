"""The clinical report: `metrics.json` and the run's records become one self-contained HTML file."""

from medtl import lazily

__all__, __getattr__, __dir__ = lazily(__name__, {"render": "write_report"})
