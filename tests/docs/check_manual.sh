#!/bin/sh
# SPDX-License-Identifier: MIT
# check_manual.sh PAGE...: mandoc and groff find nothing to say about the pages, and show each with its own name.
set -eu

for page; do
    mandoc -T lint -W warning "$page"
    complaints=$(groff -mandoc -Kutf8 -Tutf8 -ww -z "$page" 2>&1)
    if [ -n "$complaints" ]; then
        echo "$complaints"
        exit 1
    fi
    name=$(basename "$page" | sed 's/\.[0-9]$//')
    mandoc -T ascii "$page" | sed "s,.\x08,,g" | grep -q "^ *$name - "
done
