"""What weights exist: names with source, pin, size, licence, task, metrics and transforms, readable without torch."""
