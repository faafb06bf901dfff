"""Replays the arrivals of a real language model service against a server of one's own."""
