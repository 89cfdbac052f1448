"""The ports of replication on JetStream, with all its quirks.

Knows nothing of matching, roles or commits: bytes in, bytes out.
"""
