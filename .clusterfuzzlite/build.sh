#!/bin/bash -eu
exec "$SRC/spice-migration/fuzz/oss-fuzz/build.sh"
