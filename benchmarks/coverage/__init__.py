"""How often the intervals of `medtl` hold the truth: `make coverage` writes `reports/coverage.md`."""
