"""The server of the exchange: it replicates markets, leads some, and answers for them.

`replication` decides, and is pure; `jetstream` keeps its ports on NATS; the modules beside them
are the shell that carries inputs in and effects out.
"""
