"""The guard of the exchange: it cuts connections to NATS that flood, since NATS limits no client.

`flood` decides who floods, and is pure; `monitoring` asks the nodes, `guard` carries samples in
and verdicts out.
"""
