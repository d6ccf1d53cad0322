"""Leaving in time: what announces the end of this instance, and what is done before it comes."""
