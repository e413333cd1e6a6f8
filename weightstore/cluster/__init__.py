"""Beyond one machine: mirrors, bundles, and the server of a store."""
