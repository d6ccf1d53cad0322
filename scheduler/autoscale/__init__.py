"""The fleet: capacity that follows the queue, and never costs a running task.

`snapshot` and `policies` are pure: what is known becomes how many workers are wanted, with reasons. `protocol` holds
the transitions of a worker's record, on which safety rests. `fleets` are what can be made larger and smaller.
"""
