"""The words of the report in each language."""
