"""The painter: style transfer by optimisation. It knows nothing of daemons, folders or ledgers."""
