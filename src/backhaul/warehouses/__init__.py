"""Where rows come from: one small file a warehouse, Arrow or in place."""
