"""Building blocks without paper knowledge."""
