"""Looking after the state: whether it is whole."""
