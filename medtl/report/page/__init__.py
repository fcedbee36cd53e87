"""The content of the page: sentences, tables and sections from measures and records."""
