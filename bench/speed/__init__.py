"""How fast the exchange is, measured beside what bounds it and what else there is."""
