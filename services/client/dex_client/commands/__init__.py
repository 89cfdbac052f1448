"""The subcommands of `dex-client`, a module for each family.

What they ask goes through the client library; `frame` is what they share.
"""
