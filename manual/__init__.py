"""What of the manual is made by code: its reference and its figures. Not part of the package."""
