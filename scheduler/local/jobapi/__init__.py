"""A stand-in for the asynchronous job API, run as a process of its own: requests become jobs, their results lie in S3.

It paints instead of diffusing. It knows nothing of tasks and queues, and nothing in the product but `local` knows that
it exists. No job outlives the process, as in an API that keeps them in memory.
"""
