"""Readers of what people and models write: plan documents, planner syntaxes, labelled answers."""
