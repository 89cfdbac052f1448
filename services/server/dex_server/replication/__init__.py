"""Replication: which role a server has in a market, and what it does in it.

Pure and synchronous: inputs in, effects out. Nothing here does input or output, reads a clock or
draws a random number, so a whole cluster runs in one thread from one seed.
"""
