"""Pairs to a candidate: recipe, loss, the loop, the memory plan, and the process that runs them."""
