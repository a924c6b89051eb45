"""What runs, agents and teams share: events and commands, the budget account, questions."""
