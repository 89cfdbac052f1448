"""What a run is asked to do. Knows nothing of where the exchange is."""

from msgspec import Struct


class Load(Struct, frozen=True, kw_only=True):
    """What was asked for; every field is an option of the command line."""

    orders: int
    markets: tuple[str, ...]
    """No name twice."""
    peers: int
    in_flight: int
    """Requests under way at once, over all peers; each carries `batch` orders."""
    batch: int
    rate: float | None
    """Orders per second, by the clock; None for as fast as answers come."""
    seed: int
    deadline_s: float
    """How long an order is sent again before it is given up."""
    verify: bool

    @property
    def peer_names(self) -> list[str]:
        """The peers that send, in order."""
        return [f"load-{number}" for number in range(1, self.peers + 1)]
