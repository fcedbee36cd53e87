"""Before the study: how many patients it needs, and what a given number can show."""
