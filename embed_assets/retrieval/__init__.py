"""Finding documents for queries: exact dense search in blocks, BM25, and their fusion, for all stages."""
