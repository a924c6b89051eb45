"""The cases of issue 13, each with its test by name and a second variant of its kind."""
