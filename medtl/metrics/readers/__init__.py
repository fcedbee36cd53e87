"""Several readers of the same cases: multi-reader multi-case studies, paired shares, agreement."""
