"""STEP 4: trials become the memory that the agent reads; the store is where they live."""
