"""What all stand-ins for engines share: HTTP with a server's manners, faults on demand, a diary,
life as a child process.
"""
