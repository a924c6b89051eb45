"""The contract: requests, results and controls, and the jobs that workflows hand to activities."""
