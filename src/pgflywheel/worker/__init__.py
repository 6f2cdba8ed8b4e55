"""The worker: claim jobs, run checks, write scores."""
