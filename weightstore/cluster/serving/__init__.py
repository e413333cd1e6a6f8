"""``weightstore serve``: stores over HTTP, read only, in the dialects that clients speak already."""
