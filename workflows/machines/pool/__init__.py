"""The machine of a pool: rate, parallelism, penalty, breakers and permits of one endpoint."""
