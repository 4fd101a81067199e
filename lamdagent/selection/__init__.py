"""STEP 2: (legal actions, history) -> one action and its reason. One seam, `policy.Policy`."""
