#!/bin/sh
# Pulls at the sheet again and again. Prints much and takes a few seconds, to be watched.
set -eu
esc=$(printf '\033')
test -s "$BRIGANDINE_NEEDS/lib.compile/librings.a"
echo "pulling at $(nm "$BRIGANDINE_NEEDS/lib.compile/librings.a" | grep -c ' T ') functions"
pull=1
while [ "$pull" -le 40 ]; do
    force=$((pull * 25))
    printf '%s[2mpull %2d/40%s[0m  %s[32mholds%s[0m under %4d N  ' "$esc" "$pull" "$esc" "$esc" "$esc" "$force"
    bar=0
    while [ "$bar" -lt "$((pull / 2))" ]; do printf '='; bar=$((bar + 1)); done
    printf '>\n'
    sleep 0.1
    pull=$((pull + 1))
done
printf '%s[1;32mthe sheet holds%s[0m\n' "$esc" "$esc"
