"""The load generator: sends orders, measures, and checks that what it was told is true."""
