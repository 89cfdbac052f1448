"""The peer's side of the exchange: how commands are sent until they have an outcome.

What is here serves whoever sends: ids, retries, queries. The load generator is in `load/`.
Refusals are receipts, not exceptions; what can go wrong beside them is in errors.py.
"""
