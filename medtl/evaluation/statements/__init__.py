"""What the data do not carry, and what mends it: facts for the report, without words."""
