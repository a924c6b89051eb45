"""The compile passes: each a pure function over a plan, each in its own file."""
