"""The agent: watches configuration files, merges and validates them, and publishes them for `shmconf` to read.

One module per stage, named after it. Nothing here is imported by a worker process.
"""
