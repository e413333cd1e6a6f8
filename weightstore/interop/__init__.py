"""Other libraries hit the store: views, the hook, recorded runs, scans, and caches that are adopted."""
