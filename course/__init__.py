"""What runs the course: commands, notebooks, report, benchmarks. No notebook imports it beyond its set-up cell."""

import sys

sys.modules.setdefault("rfc3987_syntax", None)  # a grammar that jsonschema builds at every start, and never needs
