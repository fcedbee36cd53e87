"""What stands on the page: sentences, tables and sections from measures and records."""
