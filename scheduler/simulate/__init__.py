"""The real policies on a virtual clock: what a configuration would have cost, and who would have waited."""
