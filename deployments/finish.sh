#!/bin/sh
# Leave in /opt/venv what an image needs: without the libraries' own tests, headers and symbols, and
# without Arrow's RPC; compiled, since nobody may write there later; with a list of what it holds.
set -eu
packages=/opt/venv/lib/python3.11/site-packages
find "$packages" -type d -name tests -prune -exec rm -r {} +
rm -r "$packages"/pyarrow/include "$packages"/pyarrow/*flight*
strip --strip-unneeded "$packages"/_polars_runtime_32/*.so "$packages"/pyarrow/*.so*
/opt/venv/bin/python -m compileall -q -j 0 "$packages" || true # some modules are for newer Pythons
/opt/build/bin/cyclonedx-py environment --output-reproducible --output-file /opt/venv/sbom.cdx.json /opt/venv/bin/python
