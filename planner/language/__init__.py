"""The plan language: plans, values, references and conditions, and what a plan may name."""
