"""What runs the course: commands, notebooks, report, benchmarks. No notebook imports it beyond its set-up cell."""

import sys

# jsonschema would build a grammar of addresses at every start, for seconds; a notebook's format needs none.
sys.modules.setdefault("rfc3987_syntax", None)
