"""All decisions of runs, agents, teams and pools, as machines: a state, and `step`. No Temporal."""
