"""Beyond one machine: mirrors, and what brings weights to where there is no internet."""
