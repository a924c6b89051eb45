"""Calls of model endpoints: the client, its errors, limits and prices."""
