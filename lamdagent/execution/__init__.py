"""WHERE heavy work runs: in process, in a worker process, on Ray. One seam, `executor.Executor`."""
