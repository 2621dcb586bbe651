"""Simulated destination APIs over real HTTP: made from public documents, and not the vendors."""
