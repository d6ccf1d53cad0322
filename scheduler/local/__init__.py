"""The whole service on one machine, without AWS and without a GPU; nothing outside `local` and `cli` imports it."""
