"""What must outlive a process: runs, plans, intents, outcomes, dead letters, budgets and leases."""
