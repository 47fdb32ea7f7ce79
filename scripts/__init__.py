"""Programs around the package: examples, benchmarks, reports; each runs from a checkout, with --help."""
