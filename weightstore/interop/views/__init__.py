"""Views: directories in other libraries' cache layouts whose entries lead to blobs of a store (ADR 13)."""
