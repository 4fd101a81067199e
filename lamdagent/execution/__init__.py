"""WHERE heavy work runs: in process, in a worker process, later on Ray. One seam, `executor.Executor`."""
