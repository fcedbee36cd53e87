"""How often the intervals hold the truth: `make coverage` writes `reports/coverage.md`."""
