"""What measurements measure with: a drain, a stopwatch, CPU time, percentiles, receipts."""
