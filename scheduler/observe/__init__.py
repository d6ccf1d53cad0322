"""Telling people and machines what happens: logs, metrics, health."""
