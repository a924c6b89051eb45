"""The compiler: passes over a plan, estimates, revisions, forks and templates."""
