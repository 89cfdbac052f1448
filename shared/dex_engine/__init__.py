"""The matching engine: a market as a pure state machine.

`Market.execute` decides what a command does and does it; `Market.apply` follows what another
engine decided. Both change the state through the same few methods, so both reach the same state.
Nothing here does input or output, reads a clock or knows of servers.
"""

from dex_engine.errors import Diverged, InvariantViolated
from dex_engine.market import Bounds, Market

__all__ = ["Bounds", "Diverged", "InvariantViolated", "Market"]
