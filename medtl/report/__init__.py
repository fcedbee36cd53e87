"""The clinical report: `metrics.json` and the run's records become one self-contained HTML file."""
