"""The policies, one module each: from a snapshot to the number of workers wanted, with reasons; pure."""
