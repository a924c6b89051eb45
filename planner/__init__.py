"""The compiler: plans, their syntaxes, references, passes, prompts and estimates. Pure."""
