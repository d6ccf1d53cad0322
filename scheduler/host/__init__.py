"""This host as one of a fleet: what EC2 announces about it, what it tells the fleet, and its turn at leading."""
