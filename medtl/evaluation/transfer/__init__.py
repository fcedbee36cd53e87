"""A trained model on patients of another place, and the sites of a table."""
