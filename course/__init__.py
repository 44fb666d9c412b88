"""What runs the course: commands, notebooks, report, benchmarks. No notebook imports it beyond its set-up cell."""
