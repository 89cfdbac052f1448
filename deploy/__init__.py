"""Run the exchange on this machine: NATS nodes, servers, markets, and a demonstration.

Knows nothing of matching or of the log: it starts the programs that do, and ends them again.
"""
