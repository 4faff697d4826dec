"""From addresses and a clock to one hole: synchronous, on `selectors`."""
