"""The comparison recipes that come with the package."""
