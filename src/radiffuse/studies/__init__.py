"""Methods compared at several budgets of labels; programs of others beside them."""
