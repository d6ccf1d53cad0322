"""A stand-in for ComfyUI, run as a process of its own: it answers as the real one was seen to answer.

It paints instead of diffusing, so that no GPU is needed; time, errors, queue, events and traps are the real ones'. It
knows nothing of tasks, queues or AWS, and nothing in the product but `local` knows that it exists.
"""
