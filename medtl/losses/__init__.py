"""Losses and penalties, each with its definition, its source and the traps it avoids."""
