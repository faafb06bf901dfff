"""Runs the loop for each policy. The only folder that knows kopf."""
