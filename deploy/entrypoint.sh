#!/bin/sh
# Takes the password of the database from a file, so that it stands in no settings, no command line and no image.
set -eu
if [ -n "${PGPASSWORD_FILE:-}" ]; then
    if [ ! -r "$PGPASSWORD_FILE" ]; then
        echo "error: PGPASSWORD_FILE=$PGPASSWORD_FILE cannot be read by uid $(id -u); make the file readable for it" >&2
        exit 2
    fi
    PGPASSWORD="$(cat "$PGPASSWORD_FILE")"
    export PGPASSWORD
    unset PGPASSWORD_FILE
fi
exec triphase "$@"
