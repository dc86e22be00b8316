#!/bin/sh
# Wants every ring to go through two others, which the rings at the edge do not: fails.
esc=$(printf '\033')
echo "checking 17 rings"
for ring in 1 2 3 4 5 6 7 8 9 10 11; do
    echo "ring $ring goes through two others"
done
printf '%s[1;31mring 12 is loose:%s[0m it goes through one other, at the edge of row 3\n' "$esc" "$esc"
echo "This job fails on purpose, so that a failure can be seen." >&2
exit 3
